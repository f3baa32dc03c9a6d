"""`pouw publisher publish`, from images to the pool: refused, killed half-way, run again."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import nibabel
import numpy as np
import pytest
from eth_account import Account

from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient
from pouw.chain.reading import ArenaReader
from pouw.chain.tx import Sender
from pouw.cli.main import main
from pouw.errors import ChainUnavailable
from pouw.hashing import key_hash_of, raw_cid
from pouw.journal import Journal
from pouw.roles.content import fetch_spec
from pouw.roles.drafts import TASKS
from pouw.storage.local import LocalStore
from pouw.types import TaskId


@pytest.fixture
def scans(folder: Path) -> Path:
    """Four training and two test cases of a bright box, in nnU-Net layout."""
    random = np.random.Generator(np.random.Philox(5))
    root = folder / "scans"
    for part, count in (("Tr", 4), ("Ts", 2)):
        for case in range(count):
            label = np.zeros((24, 20, 8), dtype=np.uint8)
            label[4 : 12 + case, 5:13, 1:7] = 1
            image = np.rint(1000 * label + random.normal(0, 200, label.shape)).astype(np.int16)
            for kind, voxels in ((f"images{part}", image), (f"labels{part}", label)):
                (root / kind).mkdir(parents=True, exist_ok=True)
                name = f"{part}{case}{'_0000' if kind.startswith('images') else ''}.nii.gz"
                nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), root / kind / name)
    document = {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0, "box": 1},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(document))
    return root


def unplugged(*_: object) -> NoReturn:
    raise ChainUnavailable("the cable was pulled")


def words_for(folder: str = "scans", *more: str, reward: str = "1ether") -> list[str]:
    words = ["publisher", "publish", folder, "--reward", reward, "--minimum", "0.8"]
    return [*words, "--dims", "2", "--data-will-be-public", "--json", *more]


KNOWN = "--miners-may-know-the-test-set"


def drafts(folder: Path) -> dict[str, dict[str, Any]]:
    with Journal(folder / "home" / "journal.sqlite") as journal:
        return dict(journal.items(TASKS))


def test_publish__first_and_killed_after_it_was_sent__run_again_is_the_same_task(
    arena: str,
    scans: Path,
    rpc: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = words_for("scans", "--first")
    with monkeypatch.context() as cable:
        cable.setattr("pouw.chain.tx.Sender.wait", unplugged)
        assert main(words) == 1
    capsys.readouterr()
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["task"] == 1

    reader = ArenaReader.open(rpc, arena)
    task = reader.task(TaskId(1))
    assert (task.first, task.min_score, task.reward) == (True, 800_000, 10**18)
    assert reader.state().tasks == 1


def test_publish__killed_after_it_was_sent__other_terms_are_refused_once(
    arena: str,
    scans: Path,
    folder: Path,
    rpc: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as cable:
        cable.setattr("pouw.chain.tx.Sender.wait", unplugged)
        assert main(words_for()) == 1
    assert [value["sent"] for value in drafts(folder).values()] == [True]
    capsys.readouterr()

    assert main(words_for(reward="2ether")) == 1
    refusal = json.loads(capsys.readouterr().out)
    assert "published task 1" in refusal["error"]
    assert "pouw publisher cancel 1" in refusal["hint"]
    assert ArenaReader.open(rpc, arena).state().tasks == 1

    assert main(words_for("scans", KNOWN, reward="2ether")) == 0
    assert json.loads(capsys.readouterr().out)["task"] == 2


def test_publish__killed_after_it_was_sent_and_found_by_the_role__is_the_same_task(
    arena: str,
    scans: Path,
    rpc: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as cable:
        cable.setattr("pouw.chain.tx.Sender.wait", unplugged)
        assert main(words_for()) == 1
    capsys.readouterr()
    assert main(["publisher", "run", "--once", "--confirmations", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["tasks"] == [1]

    assert main(words_for()) == 0

    assert json.loads(capsys.readouterr().out)["task"] == 1
    assert ArenaReader.open(rpc, arena).state().tasks == 1


def test_publish__done__says_where_the_money_is_and_what_is_due(
    arena: str, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_for()) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["arena"], first["selected"], first["reward_wei"]) == (arena, True, str(10**18))
    assert int(first["bond_wei"]) > 0
    opens, closes = first["key_window"]
    assert opens < closes

    known = "--miners-may-know-the-test-set"
    words = [word for word in words_for("scans", "--again", known) if word != "--json"]
    assert main([*words[:6], "1", *words[7:]]) == 0
    said = capsys.readouterr()
    assert "it waits in the pool; `pouw publisher cancel 2` takes it back" in said.out
    assert "pouw store serve" in said.out
    assert "keep a copy" in said.out
    assert "warning: hardly any model reaches 1.0000" in said.err


def test_publish__same_again__is_refused_until_that_is_meant(
    arena: str, scans: Path, folder: Path, rpc: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_for()) == 0
    shutil.copytree(scans, folder / "copy" / "scans")
    capsys.readouterr()
    for where in ("scans", "copy/scans"):
        assert main(words_for(where)) == 1
        refusal = json.loads(capsys.readouterr().out)
        assert "this is task 1 already, selected" in refusal["error"]
        assert "--again" in refusal["hint"]
    assert ArenaReader.open(rpc, arena).state().tasks == 1

    assert main(words_for("scans", "--again", KNOWN)) == 0
    assert json.loads(capsys.readouterr().out)["task"] == 2
    assert main(["publisher", "top-up", "2", "--amount", "1ether"]) == 0
    capsys.readouterr()
    assert main(words_for(reward="2ether")) == 1
    assert "this is task 2 already, in the pool" in json.loads(capsys.readouterr().out)["error"]

    assert main(words_for("scans", KNOWN, reward="3ether")) == 0
    assert main(words_for("scans", KNOWN, "--licence", "CC0")) == 0
    assert ArenaReader.open(rpc, arena).state().tasks == 4


def test_publish__of_scans__says_shares_of_labels_and_keeps_names_of_cases(
    arena: str, scans: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_for()) == 0
    assert "labels: background (" in capsys.readouterr().err
    assert main(["publisher", "names", "1", "--json"]) == 0
    names = json.loads(capsys.readouterr().out)["names"]
    assert sorted(names) == [f"sub-00{number}" for number in range(1, 7)]
    assert sorted(names.values()) == ["Tr0", "Tr1", "Tr2", "Tr3", "Ts0", "Ts1"]
    assert main(["publisher", "names", "1"]) == 0
    assert f"sub-001  {names['sub-001']}" in capsys.readouterr().out

    assert main(["publisher", "names", "2", "--json"]) == 1
    assert "task 2" in json.loads(capsys.readouterr().out)["error"]
    assert main(["publisher", "names", "1", "--home", "elsewhere", "--json"]) == 1
    assert not (folder / "elsewhere").exists()


def test_publish__again_and_killed_after_it_was_sent__run_again_is_the_same_task(
    arena: str,
    scans: Path,
    rpc: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(words_for()) == 0
    with monkeypatch.context() as cable:
        cable.setattr("pouw.chain.tx.Sender.wait", unplugged)
        assert main(words_for("scans", "--again", KNOWN)) == 1
    capsys.readouterr()
    assert main(words_for("scans", "--again", KNOWN)) == 0
    assert json.loads(capsys.readouterr().out)["task"] == 2
    assert ArenaReader.open(rpc, arena).state().tasks == 2


def test_publish__another_folder_after_a_kill__is_published_and_the_first_still_found(
    arena: str,
    scans: Path,
    folder: Path,
    rpc: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(scans, folder / "others")
    with monkeypatch.context() as cable:
        cable.setattr("pouw.chain.tx.Sender.wait", unplugged)
        assert main(words_for()) == 1
    capsys.readouterr()

    for words, task in ((words_for("others", KNOWN), 2), (words_for(), 1)):
        assert main(words) == 0
        assert json.loads(capsys.readouterr().out)["task"] == task
    assert ArenaReader.open(rpc, arena).state().tasks == 2


@pytest.fixture
def forking(
    folder: Path, scans: Path, rpc: str, anvil_url: str, capsys: pytest.CaptureFixture[str]
) -> Iterator[ArenaReader]:
    """A fresh arena, named in the settings, on a chain that takes blocks back."""
    settings = (folder / "pouw.toml").read_text()
    (folder / "pouw.toml").write_text(settings.replace(rpc, anvil_url))
    assert main(["deploy", "--oracle", dev_account(5).address, "--json"]) == 0
    arena = json.loads(capsys.readouterr().out)["arena"]
    with (folder / "pouw.toml").open("a") as file:
        file.write(f'arena = "{arena}"\nfrom_block = 0\n')
    reader = ArenaReader.open(anvil_url, arena)
    yield reader
    reader.endpoint.close()


@pytest.mark.parametrize("looked", [True, False])
def test_publish__taken_back_by_a_reorganisation__is_told_and_published_again_as_it_was_sealed(
    forking: ArenaReader, folder: Path, looked: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = forking.endpoint
    snapshot = endpoint.request("evm_snapshot")
    assert main(words_for()) == 0
    sealed = list(drafts(folder))
    assert endpoint.request("evm_revert", snapshot)
    endpoint.request("anvil_mine", "0x3")
    capsys.readouterr()

    if looked:
        assert main(["publisher", "run", "--once"]) == 0
        assert "task 1 is gone, the chain was reorganised without it" in capsys.readouterr().err
    assert main(words_for()) == 0

    shown = capsys.readouterr()
    assert "taking up what was sealed" in shown.err
    assert json.loads(shown.out)["task"] == 1
    assert forking.state().tasks == 1
    assert list(drafts(folder)) == sealed


@pytest.mark.parametrize(
    ("overtaken", "task", "where"), [(False, 1, "selected"), (True, 2, "in the pool")]
)
def test_publish__waits_again_after_a_reorganisation__is_waited_for_and_not_paid_twice(
    forking: ArenaReader,
    folder: Path,
    overtaken: bool,
    task: int,
    where: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    endpoint = forking.endpoint
    snapshot = endpoint.request("evm_snapshot")
    assert main(words_for()) == 0
    (sent,) = endpoint.block("latest")["transactions"]
    raw = endpoint.request("eth_getRawTransactionByHash", sent)
    assert endpoint.request("evm_revert", snapshot)
    if overtaken:
        other = ArenaClient(Sender(endpoint, dev_account(1)), forking.address)
        other.publish(b"d" * 32, key_hash_of(b"k" * 32), 500_000, 10**18)
    endpoint.request("evm_setAutomine", False)
    endpoint.request("eth_sendRawTransaction", raw)
    capsys.readouterr()

    mining = threading.Timer(3, endpoint.request, ("evm_setIntervalMining", 1))
    mining.start()
    assert main(words_for()) == 1
    mining.join()

    refusal = json.loads(capsys.readouterr().out)
    assert f"this is task {task} already, {where}" in refusal["error"]
    assert forking.state().tasks == task
    assert [value["task_id"] for value in drafts(folder).values()] == [task]


def test_publish__sealed_by_a_release_that_published_names__is_sealed_afresh(
    arena: str,
    scans: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as cable:
        cable.setattr("pouw.chain.arena.ArenaClient.publish", unplugged)
        assert main(words_for()) == 1
    before = set(drafts(folder))
    with Journal(folder / "home" / "journal.sqlite") as journal:
        for key, _ in journal.items("names of cases"):
            journal.delete("names of cases", key)
    assert main(words_for()) == 0
    assert "taking up" not in capsys.readouterr().err
    assert main(["publisher", "names", "1"]) == 0
    (published,) = (key for key, value in drafts(folder).items() if value["task_id"] == 1)
    assert published not in before


def test_publish__cancelled__is_sealed_afresh(
    arena: str, scans: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_for()) == 0
    assert main(words_for("scans", KNOWN, "--licence", "CC0")) == 0
    assert main(["publisher", "cancel", "2"]) == 0
    capsys.readouterr()

    assert main(words_for("scans", KNOWN, "--licence", "CC0")) == 0

    shown = capsys.readouterr()
    assert json.loads(shown.out)["task"] == 3
    assert "taking up" not in shown.err
    assert sorted(value["task_id"] for value in drafts(folder).values()) == [1, 2, 3]


@pytest.fixture
def refused(
    arena: str, scans: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, dict[str, Any]]:
    """The draft of a publication that ended after sealing and before its transaction."""
    with monkeypatch.context() as cable:
        cable.setattr("pouw.chain.arena.ArenaClient.publish", unplugged)
        cable.setattr("pouw.roles.drafts.Drafts.mark_sent", unplugged)
        assert main(words_for()) == 1
    left = drafts(folder)
    assert [value["task_id"] for value in left.values()] == [None]
    return left


def test_publish__same_request_again__takes_up_what_was_sealed_and_says_so(
    refused: dict[str, dict[str, Any]],
    folder: Path,
    rpc: str,
    arena: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words_for(reward="2ether")) == 0

    shown = capsys.readouterr().err
    assert "taking up what was sealed on " in shown
    assert f"from {folder / 'scans'}" in shown
    task = ArenaReader.open(rpc, arena).task(TaskId(1))
    assert [task.spec_digest.hex()] == list(refused)
    assert task.reward == 2 * 10**18


def test_publish__image_corrected__is_sealed_afresh_and_the_old_given_up(
    refused: dict[str, dict[str, Any]],
    folder: Path,
    rpc: str,
    arena: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = folder / "scans/imagesTr/Tr0_0000.nii.gz"
    after = nibabel.load(folder / "scans/imagesTr/Tr1_0000.nii.gz")
    time_ns = before.stat().st_mtime_ns
    nibabel.save(after, before)
    os.utime(before, ns=(time_ns, time_ns))

    assert main(words_for()) == 0

    assert "gave up what was sealed on " in capsys.readouterr().err
    published = ArenaReader.open(rpc, arena).task(TaskId(1)).spec_digest.hex()
    assert published not in refused
    assert list(drafts(folder)) == [published]
    kept = {path.name for path in (folder / "pouw-store" / "pins").iterdir()}
    assert not kept & set(next(iter(refused.values()))["cids"])


@pytest.mark.parametrize(
    "more", [("--licence", "CC0"), ("--network", "segresnet"), ("--provenance", "none")]
)
def test_publish__other_option__is_sealed_afresh(
    refused: dict[str, dict[str, Any]], rpc: str, arena: str, more: tuple[str, str]
) -> None:
    assert main(words_for("scans", *more)) == 0
    assert ArenaReader.open(rpc, arena).task(TaskId(1)).spec_digest.hex() not in refused


def test_publish__other_folder_of_the_same_name__is_not_what_was_sealed_before(
    refused: dict[str, dict[str, Any]],
    scans: Path,
    folder: Path,
    rpc: str,
    arena: str,
) -> None:
    other = folder / "elsewhere" / "scans"
    shutil.copytree(scans, other)
    (other / "imagesTr/Tr3_0000.nii.gz").unlink()
    (other / "labelsTr/Tr3.nii.gz").unlink()

    assert main(words_for(str(other))) == 0

    published = ArenaReader.open(rpc, arena).task(TaskId(1)).spec_digest.hex()
    assert published not in refused
    assert set(drafts(folder)) == {published, *refused}


def test_publish__store_that_lacks_what_was_sealed__is_given_it_afresh(
    refused: dict[str, dict[str, Any]], folder: Path, rpc: str, arena: str
) -> None:
    assert main(words_for("scans", "--store", "another")) == 0

    digest = ArenaReader.open(rpc, arena).task(TaskId(1)).spec_digest
    assert digest.hex() not in refused
    store = LocalStore(folder / "another")
    spec = fetch_spec(store, digest)
    assert store.pins() == {raw_cid(digest), spec.train.cid, spec.test.cid}


def test_publish__draft_that_may_have_been_sent__is_never_given_up(
    refused: dict[str, dict[str, Any]], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Journal(folder / "home" / "journal.sqlite") as journal:
        for key, value in refused.items():
            journal.put(TASKS, key, {**value, "sent": True})

    assert main(words_for("scans", "--licence", "CC0")) == 0

    assert set(refused) < set(drafts(folder))
    assert "keeps what was sealed" in capsys.readouterr().err


def test_publish__draft_of_an_older_release__does_not_stand_in_the_way(
    refused: dict[str, dict[str, Any]], folder: Path, rpc: str, arena: str
) -> None:
    old = ("test_key", "title", "task_id")
    with Journal(folder / "home" / "journal.sqlite") as journal:
        for key, value in refused.items():
            journal.put(TASKS, key, {name: value[name] for name in old})

    assert main(words_for()) == 0

    published = ArenaReader.open(rpc, arena).task(TaskId(1)).spec_digest.hex()
    assert set(drafts(folder)) == {published, *refused}


@pytest.mark.parametrize("poor", [False, True])
def test_publish__what_cannot_be_paid__is_refused_before_anything_is_read(
    arena: str, folder: Path, poor: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "scans").mkdir()
    words = words_for() if poor else words_for(reward="0.001ether")
    if poor:
        stranger = Account.encrypt(Account.create().key, "correct horse", iterations=1024)
        (folder / "poor.json").write_text(json.dumps(stranger))
        words += ["--keystore", "poor.json"]

    assert main(words) == 1

    refusal = json.loads(capsys.readouterr().out)
    if poor:
        assert "needs 1.1 ether plus gas" in refusal["error"]
        assert "has 0 ether" in refusal["error"]
    else:
        assert "0.001 ether" in refusal["error"]
        assert "offer at least 0.01 ether" in refusal["hint"]
