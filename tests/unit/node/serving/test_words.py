from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.node.serving.words import MAX_SHOWN, body_words, causes, message, uncoloured, without_frames, written

# As vLLM's processes write it: the cause in the engine's process, and after it what only follows from that.
VLLM = """\
(EngineCore_0 pid=7) INFO 11-28 07:09:11 [core.py:77] Initializing a V1 LLM engine
(EngineCore_0 pid=7) ERROR 11-28 07:09:12 [core.py:700] EngineCore failed to start.
(EngineCore_0 pid=7) ERROR 11-28 07:09:12 [core.py:700] Traceback (most recent call last):
(EngineCore_0 pid=7) ERROR 11-28 07:09:12 [core.py:700]   File "/venv/vllm/v1/engine/core.py", line 691, in run
(EngineCore_0 pid=7) ERROR 11-28 07:09:12 [core.py:700]     raise ValueError(
(EngineCore_0 pid=7) ERROR 11-28 07:09:12 [core.py:700]     ^^^^^^^^^^^^^^^^^
(EngineCore_0 pid=7) ERROR 11-28 07:09:12 [core.py:700] ValueError: Free memory on device (2/24 GiB) is too little.
(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1)   File "/venv/bin/vllm", line 8, in <module>
(APIServer pid=1)     sys.exit(main())
(APIServer pid=1)              ^^^^^^
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""

PYDANTIC = """\
Traceback (most recent call last):
  File "/venv/bin/vllm", line 8, in <module>
    sys.exit(main())
             ^^^^^^
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (8192) is greater than the derived 2048. [type=value_error]
    For further information visit a page
"""


def test_the_cause_is_the_error_that_points_to_no_other() -> None:
    (cause,) = causes(VLLM.splitlines())
    assert cause.endswith("ValueError: Free memory on device (2/24 GiB) is too little.")


def test_a_worker_that_failed_is_not_its_cause() -> None:
    lines = [
        "(Worker pid=2) ERROR 11-28 08:00:44 [multiproc_executor.py:1063] RuntimeError: Unsupported head_dim=16",
        "(EngineCore pid=1) ERROR 11-28 08:00:44 [core.py:1512] RuntimeError: Worker failed with error 'Unsupported', "
        "please check the stack trace above for the root cause",
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the "
        "root cause.",
    ]
    assert causes(lines) == lines[:1]


def test_an_error_that_points_to_another_is_better_than_none() -> None:
    (cause,) = causes(["RuntimeError: Engine core initialization failed. See root cause above."])
    assert cause.startswith("RuntimeError: Engine core")


def test_an_error_of_no_kind_is_one() -> None:
    line = "(EngineCore pid=9) ERROR 11-29 01:55:34 [core.py:1510] Exception: WorkerProc initialization failed"
    assert causes([line, "RuntimeError: Engine core initialization failed. See root cause above."]) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "terminate called after throwing an instance of 'c10::Error'",
        "Fatal Python error: Segmentation fault",
        "!!!!!!! Segfault encountered !!!!!!!",
        "/venv/bin/python: symbol lookup error: /venv/torch.so: undefined symbol: aten",
        "python3: error while loading shared libraries: libcudart.so.13: cannot open shared object file",
        "python: /src/shm.cc:12: void f(): Assertion `size > 0' failed.",
        "double free or corruption (!prev)",
    ],
)
def test_what_ends_a_process_beneath_python_is_an_error(line: str) -> None:
    follows = "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above."
    assert causes([line, "  what():  CUDA error: it is lost", follows]) == [f"{line} what():  CUDA error: it is lost"]
    inside = ['  File "/venv/vllm/core.py", line 691, in run', "    run()", line, "it has ended"]
    assert without_frames(inside) == [line, "it has ended"]


def test_colours_of_a_log_are_no_words() -> None:
    coloured = "\x1b[33mWARNING\x1b[0m \x1b]0;a title\x07it \x1b[1;36mgoes\x1b[m\x00 on\tso\r\n"
    assert uncoloured(coloured) == "WARNING it goes on\tso\r\n"


def test_the_lines_that_explain_an_error_belong_to_it() -> None:
    (cause,) = causes(PYDANTIC.splitlines())
    assert "ValidationError: 1 validation error for ModelConfig Value error, User-specified max_model_len" in cause


def test_frames_source_and_carets_are_left_out_of_a_log() -> None:
    kept = without_frames(VLLM.splitlines())
    assert [line.partition("] ")[2] or line for line in kept] == [
        "Initializing a V1 LLM engine",
        "EngineCore failed to start.",
        "ValueError: Free memory on device (2/24 GiB) is too little.",
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. "
        "Failed core proc(s): {}",
    ]


def test_a_warning_and_its_source_are_left_out_of_a_log() -> None:
    said = "(EngineCore pid=7) /usr/lib/python3.11/resource_tracker.py:254: UserWarning: there appear to be leaks"
    lines = ["it fails", said, "(EngineCore pid=7)   warnings.warn('there %s'", "it has failed", said, "it ends"]
    assert without_frames(lines) == ["it fails", "it has failed", "it ends"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"error": {"message": "no"}}, "no"),
        ({"error": "no"}, "no"),
        ({"object": "error", "message": "no"}, "no"),
        ({"detail": [{"msg": "no"}]}, "[{'msg': 'no'}]"),
        ({"code": 1}, "{'code': 1}"),
        (["no"], "['no']"),
        ({"error": "a\n b"}, "a b"),
        ({"error": {"message": PYDANTIC}}, "ValidationError: 1 validation error"),
    ],
)
def test_the_message_is_found_in_the_usual_forms_of_an_error(content: Any, said: str) -> None:
    assert said in message(content)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", ""),
        (b" \n", ""),
        (b"plain  text\n", "plain text"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ('{"message": "nö"}'.encode(), "nö"),
        (b"Internal Server Error", "Internal Server Error"),
        (VLLM.encode(), "ValueError: Free memory on device (2/24 GiB) is too little."),
        (
            b"<!DOCTYPE html>\n<html><head><title>504 Gateway Time-out</title><style>p {}</style></head>\n"
            b"<body><h1>504 Gateway Time-out</h1><hr>nginx/1.22</body></html>",
            "504 Gateway Time-out nginx/1.22",
        ),
    ],
)
def test_a_body_is_reported_in_its_own_words(body: bytes, said: str) -> None:
    words = body_words(body)
    assert said in words
    assert "<" not in words
    assert bool(words) == bool(said)


@given(st.binary(max_size=2000) | st.text(max_size=500).map(str.encode))
def test_words_are_always_one_short_line(body: bytes) -> None:
    words = body_words(body)
    assert len(words) <= MAX_SHOWN
    assert "\n" not in words


def test_a_warning_that_names_an_error_is_no_cause() -> None:
    warning = (
        "(APIServer pid=1) WARNING 11-28 22:31:02 [a.py:255] This can cause `OSError: [Errno 24] Too many open files`."
    )
    error = "(Worker pid=2) ERROR 11-28 22:31:44 [b.py:1063] RuntimeError: Unsupported CPU attention: head_dim=16"
    assert causes([warning, error]) == [error]
    assert causes([warning]) == []


# As vLLM's worker said it of a config.json with another vocab_size than the weights'.
WORKER = "(Worker pid=31470) ERROR 11-30 01:44:07 [multiproc_executor.py:953]"
WORDLESS = f"""\
{WORKER}   File "/venv/vllm/models/utils.py", line 341, in load
{WORKER}     weight_loader(param, weight_data)
{WORKER}   File "/venv/vllm/layers/embedding.py", line 515, in load
{WORKER}     assert loaded_weight.shape[0] == self.org_vocab_size
{WORKER}            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
{WORKER} AssertionError
Loading safetensors checkpoint shards:   0% Completed | 0/1 [00:00<?, ?it/s]
"""


def test_an_error_that_was_not_meant_for_people_has_its_source() -> None:
    (cause,) = causes(WORDLESS.splitlines())
    assert cause.endswith(
        "AssertionError (embedding.py, line 515: assert loaded_weight.shape[0] == self.org_vocab_size)"
    )
    assert causes(["it fails", "AssertionError"]) == ["AssertionError"]
    frame, error = '  File "/venv/vllm/cpu.py", line 7, in bind', "ValueError: invalid literal for int(): 'many'"
    assert causes([frame, "    cores = int(word)", error]) == [f"{error} (cpu.py, line 7: cores = int(word))"]
    assert causes([frame, "    raise ValueError(word)", error]) == [error]


@pytest.mark.parametrize(
    "line",
    [
        "vllm: error: unrecognized arguments: --no-such-word",
        "vllm serve: error: argument --kv-cache-dtype: invalid choice: 'fp9' (choose from 'auto', 'bfloat16')",
        "/tmp/main.cpp:2:10: fatal error: Python.h: No such file or directory",
    ],
)
def test_what_programs_call_an_error_is_one(line: str) -> None:
    assert causes(["usage: vllm [-h] [-v]", line]) == [line]


def test_what_joins_tracebacks_is_left_out_of_a_log() -> None:
    joints = ["During handling of the above exception, another exception occurred:", "Process EngineCore:"]
    joints += ["The above exception was the direct cause of the following exception:"]
    assert without_frames(["it fails", *joints, "it ends"]) == ["it fails", "it ends"]


def test_an_error_of_several_lines_is_told_whole() -> None:
    """The words of a traceback's error end where something else begins."""
    lines = [
        '  File "/venv/tokenizers.py", line 412, in __init__',
        "    raise ValueError(",
        "ValueError: Cannot make the tokenizer from one of:",
        "(1) a serialization file,",
        "(2) a slow tokenizer.",
    ]
    whole = "ValueError: Cannot make the tokenizer from one of: (1) a serialization file, (2) a slow tokenizer."
    assert causes(lines) == [whole]
    assert causes([*lines, f"{WORKER} it goes on"]) == [whole]
    assert causes([*lines, "Traceback (most recent call last):", "it goes on"]) == [whole]
    logged = [f"{WORKER} {line}" for line in lines]
    assert causes([*logged, "it goes on"]) == [f"{WORKER} {whole}"]


def test_what_says_nothing_is_no_line_of_a_log() -> None:
    log = (
        "ValidationError: 1 validation error for ModelConfig\n  Value error, it is [1, 2] [type=value_error, "
        "input_value=ArgsKwargs((), {'model': ...nderer_num_workers': 1}), input_type=ArgsKwargs]\n"
        "    For further information visit https://errors.pydantic.dev/2.14/v/value_error\n \n"
        "Loading safetensors checkpoint shards:   0% Completed | 0/1 [00:00<?, ?it/s]\r"
        f"{WORKER} \nit ends\n"
    )
    first = "ValidationError: 1 validation error for ModelConfig"
    assert written(log) == [first, "  Value error, it is [1, 2]", "it ends"]


def test_a_process_that_died_is_the_cause_of_what_was_cancelled() -> None:
    """As vLLM said it of a worker that was killed while it served."""
    core = "(EngineCore pid=27736) ERROR 11-30 02:04:38"
    lines = [
        f"{core} [multiproc_executor.py:315] Worker proc VllmWorker-0 died unexpectedly (exit code: None), shutting "
        "down executor.",
        f"{core} [dump_input.py:81] Dumping scheduler stats: SchedulerStats(num_running_reqs=1)",
        f"{core} [core.py:1512] RuntimeError: cancelled",
    ]
    assert causes(lines) == lines[:1]


def test_what_a_library_says_of_its_own_end_is_no_line_of_a_log() -> None:
    log = """\
nanobind: leaked 4 instances!
 - leaked instance 0x7fe977658b48 of type "triton._C.libtriton.ir.attribute"
nanobind: leaked 514 functions!
 - leaked function "create_sqrt"
 - ... skipped remainder
nanobind: this is likely caused by a reference counting issue in the binding code.
See https://refleaks.html/usr/lib/multiprocessing/resource_tracker.py:254: UserWarning: There appear to be 2 leaked
  warnings.warn('resource_tracker: There appear to be %d '
"""
    assert without_frames(written(log)) == []
