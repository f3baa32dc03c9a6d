from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pouw.chain.accounts import dev_account
from pouw.chain.blocklog import BlockLog
from pouw.chain.devchain import DevChain
from pouw.chain.devnet import Devnet
from pouw.chain.evm import Refused
from pouw.chain.outgoing import Policy
from pouw.chain.rpc import Endpoint, EndpointRefused
from pouw.chain.tx import Call, Sender
from pouw.errors import ChainError, ConfigError
from pouw.types import Address

NOBODY = Address("0x" + "11" * 20)
# Runtime code of this creation: store the block's timestamp in slot 0.
STAMP = bytes.fromhex("6003600c60003960036000f3425f55")


def _transfer(value_wei: int = 1) -> Call:
    return Call("transfer", NOBODY, b"", value_wei)


SEND_MANY = """
import sys
from pouw.chain.accounts import dev_account
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Call, Sender
sender = Sender(Endpoint.connect(sys.argv[1]), dev_account(int(sys.argv[2])))
sent = [sender.send(Call("transfer", sys.argv[3], b"", 1)) for _ in range(10)]
assert all(sender.wait(one).succeeded for one in sent)
"""


def _post(devnet: Devnet, body: bytes, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", devnet.port, timeout=10)
    try:
        connection.request("POST", "/", body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def _rpc(devnet: Devnet, method: str, *params: Any) -> Any:
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    return _post(devnet, json.dumps(request).encode())[1]


class _Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def _signed(index: int, count: int, **changes: Any) -> bytes:
    form = {
        "type": 2,
        "chainId": 31337,
        "nonce": count,
        "gas": 21_000,
        "maxFeePerGas": 4 * 10**9,
        "maxPriorityFeePerGas": 10**9,
        "value": 1,
        "to": NOBODY,
    }
    return bytes(dev_account(index).sign_transaction(form | changes).raw_transaction)


def test_transactions__of_four_processes_at_once__all_land(devnet: Devnet) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", SEND_MANY, devnet.url, str(index), NOBODY])
        for index in range(4)
    ]
    assert [process.wait(120) for process in processes] == [0, 0, 0, 0]
    endpoint = Endpoint.connect(devnet.url)
    assert endpoint.quantity("eth_getBalance", NOBODY, "latest") == 40
    endpoint.close()


def test_blocks__every_second__do_not_drift_from_the_clock(devnet: Devnet) -> None:
    endpoint = Endpoint.connect(devnet.url)
    sender = Sender(endpoint, dev_account(1))
    for _ in range(40):
        sender.send(_transfer())
    time.sleep(2.2)
    # A second a transaction would put the chain 40 seconds ahead; a busy machine may lag a little.
    assert 0 <= time.time() - endpoint.timestamp("latest") < 15
    head = endpoint.block_number()
    stamps = [endpoint.timestamp(number) for number in range(head + 1)]
    assert stamps == sorted(set(stamps))
    endpoint.close()


def test_restart__after_transactions_and_a_pause__same_head_then_present_time(
    tmp_path: Path,
) -> None:
    clock = _Clock(1_000_000.5)
    chain = DevChain(tmp_path, automine=False, clock=clock)
    chain.submit(_signed(0, 0, to=b"", data=STAMP, gas=200_000, value=0))
    for second in range(20):
        clock.now += 1
        if second % 3 == 0:
            chain.submit(_signed(1, second // 3))
        chain.tick()
    chain.close()
    digest, height = chain.evm.head.hash, len(chain.evm.blocks)
    assert height > 10

    clock.now += 5_000
    again = DevChain(tmp_path, automine=False, clock=clock)
    assert (again.evm.head.hash, len(again.evm.blocks)) == (digest, height)
    assert again.next_timestamp() == int(clock.now)
    again.submit(_signed(1, 7))
    again.mine()
    assert again.evm.head.timestamp == int(clock.now)
    again.close()


def test_restart__on_the_same_port__old_connections_find_the_new_chain(tmp_path: Path) -> None:
    with Devnet(tmp_path, port=0, block_seconds=0) as devnet:
        port = devnet.port
        endpoint = Endpoint.connect(devnet.url)
        sender = Sender(endpoint, dev_account(0))
        first = sender.transact(_transfer())
    with Devnet(tmp_path, port=port, block_seconds=0):
        assert sender.receipt(first.transaction_hash) == first
        assert sender.transact(_transfer()).block_number == first.block_number + 1
    endpoint.close()


def test_process__killed_outright__loses_no_closed_block(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from pouw.chain.devnet import Devnet;"
        "devnet = Devnet(Path(sys.argv[1]), port=0); print(devnet.url, flush=True);"
        "devnet.serve_forever()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    endpoint = Endpoint.connect(process.stdout.readline().strip())
    receipt = Sender(endpoint, dev_account(0), policy=Policy(confirmations=2)).transact(_transfer())
    process.kill()
    process.wait()
    process.stdout.close()
    endpoint.close()
    again = DevChain(tmp_path, automine=False)
    assert again.evm.blocks[receipt.block_number].header.hash == receipt.block_hash
    assert again.place_of(receipt.transaction_hash) == (receipt.block_number, 0)
    again.close()


def test_restart__after_a_crash_in_the_middle_of_a_line__drops_the_line(tmp_path: Path) -> None:
    chain = DevChain(tmp_path, automine=True)
    chain.submit(_signed(0, 0))
    digest = chain.evm.head.hash
    chain.close()
    with (tmp_path / "blocks.jsonl").open("ab") as file:
        file.write(b'{"timestamp":99999')
    again = DevChain(tmp_path, automine=True)
    assert again.evm.head.hash == digest
    again.submit(_signed(0, 1))
    again.close()
    assert len(DevChain(tmp_path, automine=True).evm.blocks) == 3


def test_restart__with_an_altered_block__is_refused(tmp_path: Path) -> None:
    chain = DevChain(tmp_path, automine=True)
    chain.submit(_signed(0, 0))
    chain.close()
    path = tmp_path / "blocks.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[1])
    record["timestamp"] += 1
    path.write_text("\n".join([lines[0], json.dumps(record)]) + "\n")
    with pytest.raises(ChainError, match="does not come out"):
        DevChain(tmp_path, automine=True)
    path.write_text(lines[0] + "\nnonsense\n")
    with pytest.raises(ChainError, match=r"line 2, is damaged"):
        DevChain(tmp_path, automine=True)


def test_directory__of_a_running_devnet__is_refused(tmp_path: Path) -> None:
    with BlockLog(tmp_path, 31337, 1), pytest.raises(ConfigError, match="another devnet"):
        DevChain(tmp_path, automine=True)


def test_transaction__sent_again__is_already_known(tmp_path: Path) -> None:
    chain = DevChain(tmp_path, automine=False)
    raw = _signed(0, 0)
    chain.submit(raw)
    with pytest.raises(Refused, match="already known"):
        chain.submit(raw)
    chain.mine()
    with pytest.raises(Refused, match="already known"):
        chain.submit(raw)
    chain.close()


def test_transaction__ahead_of_its_turn__waits_for_the_one_before(tmp_path: Path) -> None:
    chain = DevChain(tmp_path, automine=True)
    account = bytes.fromhex(dev_account(0).address[2:])
    chain.submit(_signed(0, 1))
    assert chain.nonce(account) == 0
    chain.submit(_signed(0, 0))
    assert chain.nonce(account) == 2
    chain.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"chainId": 1}, "invalid chain id"),
        ({"gas": (1 << 24) + 1}, "gas limit too high"),
        ({"gas": 20_000}, "intrinsic gas too low"),
        ({"maxFeePerGas": 1, "maxPriorityFeePerGas": 1}, "max fee per gas less than block"),
        ({"value": 10**30}, "insufficient funds"),
    ],
)
def test_transaction__that_no_node_takes__is_refused_in_their_words(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    chain = DevChain(tmp_path, automine=True)
    with pytest.raises(Refused, match=words):
        chain.submit(_signed(0, 0, **changes))
    assert len(chain.evm.blocks) == 1
    chain.submit(_signed(0, 0))
    chain.close()


def test_transaction__of_garbage__is_refused(tmp_path: Path) -> None:
    chain = DevChain(tmp_path, automine=True)
    for raw in (b"", b"\x02", b"\x7f\x00", b"\xff" * 40, _signed(0, 0)[:-1]):
        with pytest.raises(Refused, match="invalid transaction"):
            chain.submit(raw)
    chain.close()


def test_pending_call__sees_the_present_second(tmp_path: Path) -> None:
    clock = _Clock(2_000_000.0)
    chain = DevChain(tmp_path, automine=False, clock=clock)
    # The first transaction fixes its block's second; a call later in time sees its own.
    chain.submit(_signed(0, 0))
    clock.now += 30
    with chain.state(None) as state:
        assert state.timestamp == 2_000_030
    chain.submit(_signed(0, 1))
    assert [block.header.timestamp for block in chain.evm.blocks[1:]] == [2_000_001]
    chain.mine()
    assert chain.evm.head.timestamp == 2_000_030
    chain.close()


def test_contract__of_the_largest_size__deploys_and_not_a_byte_more(tmp_path: Path) -> None:
    def creation(size: int) -> bytes:
        return bytes.fromhex(f"62{size:06x}80600b6000396000f3") + bytes(size)

    with Devnet(tmp_path, port=0, block_seconds=0) as devnet:
        endpoint = Endpoint.connect(devnet.url)
        sender = Sender(endpoint, dev_account(0))
        receipt = sender.transact(Call("largest", None, creation(24_576)))
        assert len(endpoint.data("eth_getCode", receipt.created, "latest")) == 24_576
        with pytest.raises(ChainError):
            sender.transact(Call("larger", None, creation(24_577)))
        endpoint.close()


def test_failed_request__is_answered_as_a_json_rpc_error(devnet: Devnet) -> None:
    def code(body: bytes) -> int:
        return int(_post(devnet, body)[1]["error"]["code"])

    assert code(b"not json") == -32700
    assert code(b"[" * 10_000) == -32700
    assert code(b"[]") == -32600
    assert code(b'{"id": 1}') == -32600
    assert code(b'{"id": 1, "method": "eth_call", "params": {"a": 1}}') == -32602
    for params in ([], ["latest", False, 3], [{}], ["0xzz", 1]):
        assert _rpc(devnet, "eth_getBlockByNumber", *params)["error"]["code"] == -32602
    assert _rpc(devnet, "eth_mining")["error"]["code"] == -32601
    assert _rpc(devnet, "eth_call", {"to": "0x12"}, "latest")["error"]["code"] == -32602
    assert _rpc(devnet, "eth_getBlockByNumber", "0xffff")["result"] is None


def test_request__too_large_or_from_a_web_page__is_refused(devnet: Devnet) -> None:
    assert _post(devnet, b" " * ((1 << 20) + 1))[0] == 413
    assert _post(devnet, b"{}", Host="evil.example:80")[0] == 403
    assert _post(devnet, b"{}", Origin="https://evil.example")[0] == 403


def test_batch__is_answered_in_order(devnet: Devnet) -> None:
    requests = [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": []}
        for number, method in enumerate(["eth_chainId", "eth_nothing", "net_version"])
    ]
    answers = _post(devnet, json.dumps(requests).encode())[1]
    assert [answer["id"] for answer in answers] == [0, 1, 2]
    assert answers[0]["result"] == "0x7a69"
    assert answers[1]["error"]["code"] == -32601
    assert answers[2]["result"] == "31337"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", ""])
def test_devnet__on_another_interface__is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        Devnet(tmp_path, host=host, port=0)


def test_port__that_is_taken__is_named(devnet: Devnet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{devnet.port}"):
        Devnet(tmp_path / "other", port=devnet.port)


def test_blocks__by_number_tag_and_hash__agree(devnet: Devnet) -> None:
    endpoint = Endpoint.connect(devnet.url)
    sender = Sender(endpoint, dev_account(0))
    receipt = sender.transact(_transfer())
    block = endpoint.block(receipt.block_number)
    assert block["hash"] == "0x" + receipt.block_hash.hex()
    assert block["transactions"] == ["0x" + receipt.transaction_hash.hex()]
    assert endpoint.request("eth_getBlockByHash", block["hash"], False) == block
    full = endpoint.request("eth_getBlockByHash", block["hash"], True)["transactions"][0]
    assert (full["from"], full["to"]) == (sender.address, NOBODY)
    assert endpoint.block("earliest")["number"] == "0x0"
    pending = endpoint.request("eth_getBlockByNumber", "pending", False)
    assert pending["hash"] is None
    for tag in ("latest", "safe", "finalized"):
        assert int(endpoint.block(tag)["number"], 16) >= receipt.block_number
    endpoint.close()


def test_logs__more_than_the_limit__are_refused(
    devnet: Devnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pouw.chain.methods.MAX_LOGS", -1)
    endpoint = Endpoint.connect(devnet.url)
    sender = Sender(endpoint, dev_account(0))
    log_once = bytes.fromhex("60005f5fa0")  # emit an empty log while being created
    sender.transact(Call("log", None, log_once))
    with pytest.raises(EndpointRefused, match="more than"):
        endpoint.request("eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest"})
    endpoint.close()


def test_calls_and_estimates__leave_the_state_alone(tmp_path: Path) -> None:
    with Devnet(tmp_path, port=0, block_seconds=0) as devnet:
        endpoint = Endpoint.connect(devnet.url)
        created = Sender(endpoint, dev_account(0)).transact(Call("stamp", None, STAMP)).created
        message = {"from": dev_account(0).address, "to": created}
        endpoint.request("eth_call", message, "pending")
        endpoint.request("eth_estimateGas", message)
        slot = endpoint.data("eth_getStorageAt", created, "0x0", "pending")
        assert slot == bytes(32)
        receipt = Sender(endpoint, dev_account(1)).transact(Call("stamp", created, b""))
        slot = endpoint.data("eth_getStorageAt", created, "0x0", "latest")
        assert int.from_bytes(slot, "big") == endpoint.timestamp(receipt.block_number)
        endpoint.close()
