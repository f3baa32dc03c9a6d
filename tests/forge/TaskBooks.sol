// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {Cheats} from "./Cheats.sol";
import {Stage} from "./Stage.sol";

/// @title The tasks' books
/// @notice Kept from events alone: who waits, who is selected, what is escrowed, what each actor must be credited.
abstract contract TaskBooks is Stage {
    enum Fate {
        None,
        Pooled,
        Selected,
        Round,
        Cancelled,
        Dropped,
        Closed
    }

    struct TaskBook {
        address publisher;
        uint32 minScore;
        bool first;
        uint128 reward;
        bytes32 specDigest;
        Fate fate;
    }

    struct RoundBook {
        uint64 taskId;
        uint256 t0;
        bytes32 poolHistory;
        bool opened;
        uint256 voted;
        uint256 voters;
        IPoUW.Verdict verdict;
        address winner;
        bytes32 evidenceDigest;
        address challenger;
        bool ruled;
        bool changed;
        bytes32 header;
    }

    struct EntryBook {
        bytes32 commitment;
        uint256 time;
        uint32 claim;
        bytes22 digest;
        bool revealed;
        bool reclaimed;
    }

    /// @dev The arena's terms once more, where reading them is free; T1 to T6 count from t0.
    uint256 internal immutable T1;
    uint256 internal immutable T2;
    uint256 internal immutable T3;
    uint256 internal immutable T4;
    uint256 internal immutable T5;
    uint256 internal immutable T6;
    uint256 internal immutable OPENS;
    uint256 internal immutable CLOSES;
    uint256 internal immutable MINER_BOND;
    uint256 internal immutable CHALLENGE_BOND;
    uint256 internal immutable SEATS;
    uint256 internal immutable THRESHOLD;
    address internal immutable ARBITER;
    address internal immutable ASSET;

    uint256 internal clock = 1_800_000_000;
    uint256 internal forced;
    address[] internal actors;
    mapping(address => bool) internal known;

    mapping(uint64 => TaskBook) internal taskBooks;
    uint64[] internal pooled;
    uint64 internal published;
    uint64 internal selected;
    uint256 internal selectedAt;
    uint64 internal begun;
    bool internal live;
    mapping(uint64 => RoundBook) internal roundBooks;
    mapping(uint64 => mapping(address => EntryBook)) internal entryBooks;
    mapping(uint64 => address[]) internal revealers;
    mapping(uint64 => mapping(IPoUW.Verdict => mapping(address => uint256))) internal votesFor;
    bytes32 internal history;
    bytes32 internal historyBeforeSelection;
    bytes32 internal parent;

    uint256 internal escrowed;
    uint256 internal bonds;
    uint256 internal credited;
    mapping(address => uint256) internal creditOf;
    /// @dev What a call's events say an account must be credited, less what it was; and how many are not even.
    mapping(address => int256) private _owed;
    uint256 internal uneven;

    bytes32[] internal visitNames;
    mapping(bytes32 => uint256) internal visits;

    constructor(IPoUW.Parameters memory p) {
        T1 = p.phase1;
        T2 = T1 + p.keyWindow;
        T3 = T2 + p.revealWindow;
        T4 = T3 + p.reportWindow;
        T5 = T4 + p.challengeWindow;
        T6 = T5 + p.rulingWindow;
        OPENS = T6 - T1;
        CLOSES = OPENS + p.keyWindow;
        MINER_BOND = p.minerBond;
        CHALLENGE_BOND = p.challengeBond;
        SEATS = p.oracles.length;
        THRESHOLD = p.threshold;
        ARBITER = p.arbiter;
        ASSET = p.asset;
    }

    /// @dev The boundaries of the newest round, after the books.
    function _times() internal view returns (Times memory) {
        uint256 t0 = roundBooks[begun].t0;
        return Times(t0, t0 + T1, t0 + T2, t0 + T3, t0 + T4, t0 + T5, t0 + T6);
    }

    function _visit(bytes32 name) internal {
        if (visits[name]++ == 0) visitNames.push(name);
    }

    function _know(address account) internal {
        if (!known[account]) actors.push(account);
        known[account] = true;
    }

    function _expect(address account, uint256 amount) internal {
        _owe(account, int256(amount));
    }

    function _owe(address account, int256 amount) internal {
        if (amount == 0) return;
        int256 before = _owed[account];
        if (before == 0) ++uneven;
        else if (before + amount == 0) --uneven;
        _owed[account] = before + amount;
    }

    function _roll(IPoUW.PoolChange kind, uint64 taskId, uint128 reward) private {
        TaskBook storage task = taskBooks[taskId];
        history = keccak256(abi.encode(history, kind, taskId, task.publisher, task.specDigest, reward));
    }

    function _leavePool(uint64 taskId) private {
        for (uint256 i = 0; i < pooled.length; ++i) {
            if (pooled[i] == taskId) {
                pooled[i] = pooled[pooled.length - 1];
                pooled.pop();
                return;
            }
        }
        revert("2: a task leaves the pool once");
    }

    function _moneyOf(uint64 taskId) internal view returns (uint256) {
        return taskBooks[taskId].reward + _bondOf(taskBooks[taskId].reward);
    }

    function _enterTaskEvent(bytes32 kind, Cheats.Log memory log) internal returns (bool) {
        uint64 taskId = log.topics.length > 1 ? uint64(uint256(log.topics[1])) : 0;
        TaskBook storage task = taskBooks[taskId];
        if (kind == IPoUW.TaskPublished.selector) {
            require(taskId == ++published, "ids rise by one");
            bytes32 word;
            (task.specDigest,, task.minScore, task.first, task.reward, word) =
                abi.decode(log.data, (bytes32, bytes32, uint32, bool, uint128, bytes32));
            (task.publisher, task.fate) = (address(uint160(uint256(log.topics[2]))), Fate.Pooled);
            pooled.push(taskId);
            escrowed += _moneyOf(taskId);
            _roll(IPoUW.PoolChange.Publish, taskId, task.reward);
            require(word == history, "history");
        } else if (kind == IPoUW.TaskToppedUp.selector) {
            require(task.fate == Fate.Pooled, "only pooled tasks are topped up");
            uint256 before = _moneyOf(taskId);
            (task.reward,) = abi.decode(log.data, (uint128, bytes32));
            escrowed += _moneyOf(taskId) - before;
            _roll(IPoUW.PoolChange.TopUp, taskId, task.reward);
        } else if (kind == IPoUW.TaskCancelled.selector) {
            _leavePool(taskId);
            task.fate = Fate.Cancelled;
            escrowed -= _moneyOf(taskId);
            _expect(task.publisher, _moneyOf(taskId));
            _roll(IPoUW.PoolChange.Cancel, taskId, 0);
        } else if (kind == IPoUW.TaskSelected.selector) {
            require(selected == 0, "8: at most one selected task");
            require(!live || clock >= roundBooks[begun].t0 + T1, "8: not before t1 of the live round");
            for (uint256 i = 0; i < pooled.length; ++i) {
                require(!_comesBefore(pooled[i], taskId), "3: the highest reward, then the lowest id");
            }
            _leavePool(taskId);
            (selected, selectedAt, task.fate) = (taskId, clock, Fate.Selected);
            historyBeforeSelection = history;
            _roll(IPoUW.PoolChange.Select, taskId, task.reward);
        } else if (kind == IPoUW.TaskDropped.selector) {
            require(selected == taskId && task.fate == Fate.Selected, "2: a task leaves once");
            require(clock >= selectedAt + CLOSES, "10: not dropped in its window");
            (selected, task.fate) = (0, Fate.Dropped);
            escrowed -= _moneyOf(taskId);
            _expect(task.publisher, task.reward);
            _expect(address(0), _bondOf(task.reward));
        } else {
            return false;
        }
        return true;
    }

    function _comesBefore(uint64 one, uint64 other) internal view returns (bool) {
        (uint128 left, uint128 right) = (taskBooks[one].reward, taskBooks[other].reward);
        return left > right || (left == right && one < other);
    }
}
