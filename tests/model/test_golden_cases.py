"""Every golden case of the published models is kept here."""

import json
from pathlib import Path

FIXTURES = Path(__file__).parents[1] / "fixtures"


def test_all_35_cases_are_here() -> None:
    cases = json.loads((FIXTURES / "fixtures.json").read_text())["cases"]
    assert len(cases) == 35
    assert not [name for name, case in cases.items() if not (FIXTURES / case["file"]).is_file()]
