"""Variables of a user besides the settings: no record of a run contains them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmark.secret_settings import API_KEY, ENVIRONMENT, HEADERS

RESUME = "benchmark_resume"
NOTIFY, NOTIFY_HEADERS = "benchmark_notify", "benchmark_notify_headers"


@dataclass(frozen=True)
class Variable:
    """A variable of the inventory, described as in a role's argument_specs.yml."""

    name: str
    type: str
    default: Any
    description: str
    secret: bool = False


VARIABLES = (
    Variable(
        API_KEY,
        "str",
        "",
        "the API key that is sent to servers, from Vault or the controller's environment; it is stored in no file",
        secret=True,
    ),
    Variable(
        HEADERS,
        "dict",
        {},
        "headers that are sent to servers with every request; only their names are stored",
        secret=True,
    ),
    Variable(
        ENVIRONMENT,
        "dict",
        {},
        "environment variables of the run and of the server that it starts (CUDA_VISIBLE_DEVICES, HTTPS_PROXY); only "
        "their names are stored",
        secret=True,
    ),
    Variable(
        RESUME,
        "str",
        "",
        "a run to resume, for the nodes without a complete result: its id or the beginning of it, latest, or its "
        "directory; empty: a new run",
    ),
    # Anyone who knows a chat's webhook may post there: the address is as secret as a header.
    Variable(
        NOTIFY,
        "str",
        "",
        "a webhook (http:// or https://) or a command on the controller that gets verdict.json at the end of every "
        "run; it is stored in no file",
        secret=True,
    ),
    Variable(
        NOTIFY_HEADERS,
        "dict",
        {},
        "headers for that webhook, such as {Authorization: ...}, from Vault or the controller's environment",
        secret=True,
    ),
    # Its default is the controller's environment: a task's arguments would be printed with -vvv.
    Variable(
        "hf_cache_token",
        "str",
        None,
        "token for a gated model, by default HF_TOKEN of the controller's environment; if set here, use Vault, never "
        "plain text",
        secret=True,
    ),
)

# Variables that no record, file or output may contain.
SECRETS = tuple(variable.name for variable in VARIABLES if variable.secret)
