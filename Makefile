# The two commands of a newcomer: make demo, make test. Everything is made in this checkout; nothing is installed elsewhere.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLAY := ANSIBLE_FORCE_COLOR=$(if $(CI),,1) PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-playbook
# A package index of torch builds, for the demo's node environment and for the tests; empty: the usual index.
TORCH_INDEX_URL ?=
# Test processes: more than two cores have work for, since playbooks mostly wait. The integration tests come first: what is
# left for the end are many short files, so that no core waits for a long one.
JOBS ?= 5
DEMO_SETTINGS := -i inventory/local -e python_env_torch_index_url=$(TORCH_INDEX_URL)

# For nodes without internet: where the wheels go, and what the nodes are. glibc 2.28 is RHEL 8's; Ubuntu 22.04 has 2.35.
WHEELHOUSE ?= wheelhouse
NODE_PYTHON ?= $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
NODE_PLATFORM ?= manylinux_2_28_x86_64
REQUIREMENTS ?= requirements-node.txt

.PHONY: demo test test-vllm lint format generate wheelhouse clean

# The whole job on inventory/local: two nodes on this machine, CPU, a tiny model made on the spot.
demo: $(VENV)/.controller .demo/tiny-llama
	$(PLAY) $(DEMO_SETTINGS) playbooks/benchmark.yml

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

# Real vLLM, its build for the CPU, through the role and the engine: by hand, and by .github/workflows/vllm.yml.
test-vllm: $(VENV)/.dev
	$(BIN)/python -m pytest -v tests/integration/real_vllm

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/yamllint --strict .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline
	$(BIN)/actionlint
	$(BIN)/python -m tools.generate --check

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What is made from elsewhere: the roles' defaults, specs and tables, docs/settings.md, docs/schema, docs/manifest.md.
generate: $(VENV)/.dev
	$(BIN)/python -m tools.generate

# Everything that the nodes' Python needs, as wheels: then python_env_wheelhouse=wheelhouse. Again for another kind of node.
wheelhouse: $(VENV)/.controller
	$(BIN)/python -m benchmark wheelhouse "$(WHEELHOUSE)" --requirements "$(REQUIREMENTS)" \
	  --python $(NODE_PYTHON) --platform $(NODE_PLATFORM) $(if $(TORCH_INDEX_URL),--torch-index-url $(TORCH_INDEX_URL))

# The results and the wheelhouse stay.
clean:
	rm -rf $(VENV) .demo .build .pytest_cache .mypy_cache .ruff_cache .ansible

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.controller: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.dev: requirements.txt requirements-node.txt requirements-dev.txt | $(BIN)/python
	$(if $(TORCH_INDEX_URL),$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX_URL) $(shell grep '^torch==' requirements-node.txt))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ $(VENV)/.controller

# The nodes' environment comes first: it makes the model.
.demo/tiny-llama: | $(VENV)/.controller
	$(PLAY) $(DEMO_SETTINGS) playbooks/provision.yml --tags python_env
	.demo/venv/bin/python -m benchmark tiny-model $@
