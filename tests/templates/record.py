"""Asks the oracle (`oracle/main.go`, built) every question and writes `answers.json`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.templates.cases import questions

ANSWERS = Path(__file__).with_name("answers.json")


def main(program: str) -> None:
    asked = json.dumps(list(questions()))
    answered = subprocess.run([program], input=asked, capture_output=True, text=True, check=True)
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in json.loads(answered.stdout))
    ANSWERS.write_text(f"[\n{rows}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
