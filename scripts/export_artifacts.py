"""Write what the package needs of the compiled contracts into ``pouw/chain/artifacts``.

``ape run export_artifacts`` compiles afresh and writes; with ``--check`` it writes nothing and
exits 1 where a file is stale. The bytecode does not depend on where the checkout lies: sources
and remappings are relative, and with them the metadata hash at its end.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import ape
import click

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "pouw" / "chain" / "artifacts"
CONTRACTS = ("PoUW", "PouwToken")


def artifact(contract: Any, compiler: Any) -> str:
    """The text of one artifact: abi, bytecodes, and the settings that made them."""
    fields = {
        "abi": [entry.model_dump(mode="json", exclude_none=True) for entry in contract.abi],
        "bytecode": contract.deployment_bytecode.bytecode,
        "contract": contract.name,
        "evm": compiler.settings["evmVersion"],
        "optimizer_runs": compiler.settings["optimizer"]["runs"],
        "runtime_bytes": len(contract.runtime_bytecode.bytecode.removeprefix("0x")) // 2,
        "solidity": str(compiler.version).split("+")[0],
        "via_ir": compiler.settings["viaIR"],
    }
    return json.dumps(fields, indent=1, sort_keys=True) + "\n"


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 where a file is stale.")
def cli(check: bool) -> None:
    """Export ABI and bytecode of the contracts into the package."""
    os.environ.setdefault("SOLCX_BINARY_PATH", str(ROOT / "scripts" / "solc"))
    project = ape.project
    contracts = project.load_contracts(use_cache=False)
    stale = []
    for name in CONTRACTS:
        contract = contracts[name].contract_type
        compiler = next(c for c in project.manifest.compilers if name in c.contractTypes)
        path = FOLDER / f"{name}.json"
        text = artifact(contract, compiler)
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path.relative_to(ROOT))
        if not check:
            path.write_text(text)
            click.echo(f"wrote {path.relative_to(ROOT)}")
    if check and stale:
        click.echo(f"stale: {', '.join(map(str, stale))}; run `ape run export_artifacts`", err=True)
        sys.exit(1)
