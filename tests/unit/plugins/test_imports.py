"""What every run of the playbook loads into ansible-playbook's own process."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_plugins_load_nothing_that_only_samples_need() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "plugins").rglob("*.py")]
    names = {name for text in texts for name in re.findall(r"^from (benchmark[\w.]*) import", text, re.MULTILINE)}
    assert len(names) > 10
    program = f"import sys, {', '.join(sorted(names))}; print([n for n in ('numpy', 'msgspec') if n in sys.modules])"
    reported = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert reported.stdout == "[]\n"
