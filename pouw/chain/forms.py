"""JSON forms of blocks, transactions, receipts and logs, as Ethereum's JSON-RPC writes them."""

from __future__ import annotations

from typing import Any

from eth.abc import BlockHeaderAPI
from eth_utils import to_checksum_address

from pouw.chain.evm import Block, Included


def quantity(value: int) -> str:
    """An integer in the shortest hexadecimal form."""
    return hex(value)


def data(value: bytes) -> str:
    """Bytes in hexadecimal."""
    return "0x" + value.hex()


def block_form(block: Block, *, full: bool, pending: bool = False) -> dict[str, Any]:
    """A block with its transactions' hashes, or with the transactions where ``full``."""
    header = block.header
    place = None if pending else header
    transactions: list[Any] = [data(item.transaction.hash) for item in block.included]
    if full:
        transactions = [
            transaction_form(item, place, index) for index, item in enumerate(block.included)
        ]
    return {
        "number": quantity(header.block_number),
        "hash": None if pending else data(header.hash),
        "parentHash": data(header.parent_hash),
        "nonce": None if pending else data(header.nonce),
        "sha3Uncles": data(header.uncles_hash),
        "logsBloom": data(header.bloom.to_bytes(256, "big")),
        "transactionsRoot": data(header.transaction_root),
        "stateRoot": data(header.state_root),
        "receiptsRoot": data(header.receipt_root),
        "miner": to_checksum_address(header.coinbase),
        "difficulty": quantity(header.difficulty),
        "totalDifficulty": "0x0",
        "extraData": data(header.extra_data),
        "size": "0x0",
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "timestamp": quantity(header.timestamp),
        "mixHash": data(header.mix_hash),
        "baseFeePerGas": quantity(header.base_fee_per_gas or 0),
        "transactions": transactions,
        "uncles": [],
    }


def transaction_form(item: Included, header: BlockHeaderAPI | None, index: int) -> dict[str, Any]:
    """A transaction; ``header`` is its block's, None while it is pending."""
    transaction = item.transaction
    form: dict[str, Any] = {
        "hash": data(transaction.hash),
        "type": quantity(transaction.type_id or 0),
        "chainId": quantity(transaction.chain_id or 0),
        "nonce": quantity(transaction.nonce),
        "from": to_checksum_address(item.sender),
        "to": to_checksum_address(transaction.to) if transaction.to else None,
        "value": quantity(transaction.value),
        "gas": quantity(transaction.gas),
        "input": data(transaction.data),
        "r": quantity(transaction.r),
        "s": quantity(transaction.s),
        "blockHash": None if header is None else data(header.hash),
        "blockNumber": None if header is None else quantity(header.block_number),
        "transactionIndex": None if header is None else quantity(index),
    }
    if transaction.type_id is None:
        v = transaction.y_parity + 35 + 2 * (transaction.chain_id or 0)
        return form | {"gasPrice": quantity(transaction.gas_price), "v": quantity(v)}
    return form | {
        "maxFeePerGas": quantity(transaction.max_fee_per_gas),
        "maxPriorityFeePerGas": quantity(transaction.max_priority_fee_per_gas),
        "gasPrice": quantity(transaction.max_fee_per_gas),
        "accessList": [
            {
                "address": to_checksum_address(address),
                "storageKeys": [data(key.to_bytes(32, "big")) for key in keys],
            }
            for address, keys in transaction.access_list
        ],
        "yParity": quantity(transaction.y_parity),
        "v": quantity(transaction.y_parity),
    }


def receipt_form(block: Block, index: int, logs: list[dict[str, Any]]) -> dict[str, Any]:
    """The receipt of the transaction at ``index``; ``logs`` are its own, in JSON form."""
    item, header = block.included[index], block.header
    base_fee = header.base_fee_per_gas or 0
    transaction = item.transaction
    price = min(transaction.max_fee_per_gas, base_fee + transaction.max_priority_fee_per_gas)
    return {
        "transactionHash": data(transaction.hash),
        "transactionIndex": quantity(index),
        "blockHash": data(header.hash),
        "blockNumber": quantity(header.block_number),
        "from": to_checksum_address(item.sender),
        "to": to_checksum_address(transaction.to) if transaction.to else None,
        "contractAddress": None if item.created is None else to_checksum_address(item.created),
        "cumulativeGasUsed": quantity(item.receipt.gas_used),
        "gasUsed": quantity(item.gas_used),
        "effectiveGasPrice": quantity(price),
        "logs": logs,
        "logsBloom": data(item.receipt.bloom.to_bytes(256, "big")),
        "status": "0x1" if item.receipt.state_root == b"\x01" else "0x0",
        "type": quantity(transaction.type_id or 0),
    }


def log_forms(block: Block) -> list[list[dict[str, Any]]]:
    """The logs of a closed block, a list for each transaction."""
    header, position = block.header, 0
    forms = []
    for index, item in enumerate(block.included):
        own = []
        for log in item.receipt.logs:
            own.append(
                {
                    "address": to_checksum_address(log.address),
                    "topics": [data(topic.to_bytes(32, "big")) for topic in log.topics],
                    "data": data(log.data),
                    "blockNumber": quantity(header.block_number),
                    "blockHash": data(header.hash),
                    "transactionHash": data(item.transaction.hash),
                    "transactionIndex": quantity(index),
                    "logIndex": quantity(position),
                    "removed": False,
                }
            )
            position += 1
        forms.append(own)
    return forms
