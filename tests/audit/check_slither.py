"""Run slither on the contracts and compare what it finds with ``findings.toml``.

``python tests/audit/check_slither.py SLITHER`` (``make slither``) exits 1 where a finding of any
severity is not explained there, or an explanation has lost its finding.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BUILD = {"FOUNDRY_OUT": ".build/slither", "FOUNDRY_CACHE_PATH": ".build/slither-cache"}
Finding = tuple[str, str]


def explained() -> set[Finding]:
    """Detector and place of every finding that somebody looked at."""
    entries = tomllib.loads(Path(__file__).with_name("findings.toml").read_text(encoding="utf-8"))
    return {(entry["check"], where) for entry in entries["finding"] for where in entry["where"]}


def found(slither: str) -> dict[Finding, dict[str, Any]]:
    """Slither's findings by detector and place; forge compiles, without tests."""
    (forge,) = ROOT.glob("node_modules/@foundry-rs/forge-*/bin/forge")
    path = f"{forge.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **BUILD, "PATH": path}
    subprocess.run(
        [forge, "build", "contracts", "--build-info"], cwd=ROOT, env=environment, check=True
    )
    command = [slither, ".", "--json", "-"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if not done.stdout.strip():
        raise SystemExit(f"slither failed\n{done.stderr}")
    answer = json.loads(done.stdout)
    if not answer["success"]:
        raise SystemExit(f"slither failed: {answer['error']}")
    return {(one["check"], _place(one)): one for one in answer["results"].get("detectors", [])}


def _place(finding: dict[str, Any]) -> str:
    """``Contract.function(types)`` or ``Contract.variable`` of what the finding is about."""
    element = finding["elements"][0]
    fields = element["type_specific_fields"]
    contract = fields.get("parent", {}).get("name", "")
    return f"{contract}.{fields.get('signature', element['name'])}".removeprefix(".")


def main() -> int:
    """Compare, print what differs."""
    findings = found(sys.argv[1] if len(sys.argv) > 1 else "slither")
    known = explained()
    for key in sorted(set(findings) - known):
        print(f"not explained: {key}\n{findings[key]['description']}")
    for key in sorted(known - set(findings)):
        print(f"not found any more: {key}")
    print(f"{len(findings)} findings, {len(set(findings) & known)} explained")
    return int(set(findings) != known)


if __name__ == "__main__":
    raise SystemExit(main())
