// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {Puppet} from "../../contracts/test/Puppet.sol";
import {Attacks} from "./Attacks.sol";
import {vm} from "./Cheats.sol";
import {HostileToken} from "./HostileToken.sol";

/// @title Money out: reclaims, withdrawals, and the way from every state to an empty arena
abstract contract Purses is Attacks {
    function _collect() internal {
        if (begun > 0 && _chance(50)) {
            uint64 round = uint64(begun - _pick(begun > 3 ? 3 : begun));
            uint256 count = revealers[round].length;
            address miner = count == 0 ? _miner(_pick(MINERS)) : revealers[round][_pick(count)];
            EntryBook storage entry = entryBooks[round][miner];
            bytes memory data = abi.encodeCall(IPoUW.reclaim, (round, miner));
            if (roundBooks[round].header == 0) {
                _refused(IPoUW.NotClosed.selector, stranger, 0, data);
            } else if (!entry.revealed || entry.reclaimed) {
                _refused(IPoUW.NothingToReclaim.selector, stranger, 0, data);
            } else {
                _must("reclaim", stranger, 0, data);
            }
            return;
        }
        _withdraw(_chance(20) ? address(puppet) : actors[1 + _pick(actors.length - 1)]);
    }

    function _withdraw(address who) private {
        uint256 amount = creditOf[who];
        if (amount == 0) {
            _refused(IPoUW.NothingToWithdraw.selector, who, 0, abi.encodeCall(IPoUW.withdraw, (who)));
        } else if (ASSET == address(0) && _chance(who == address(puppet) ? 70 : 30)) {
            _withdrawToPuppet(who);
        } else if (HOSTILE && _chance(30)) {
            // Whoever withdraws a lying token loses what it says that it moved; the arena keeps it.
            HostileToken(ASSET).behave(HostileToken.Manner.Lie);
            forced += amount;
            _must("withdraw a lie", who, 0, abi.encodeCall(IPoUW.withdraw, (who)));
            HostileToken(ASSET).behave(HostileToken.Manner.Honest);
        } else {
            _must("withdraw", who, 0, abi.encodeCall(IPoUW.withdraw, (who)));
        }
    }

    /// @dev A receiver that refuses, or that calls the arena back while it is paid.
    function _withdrawToPuppet(address who) private {
        bytes memory withdraw = abi.encodeCall(IPoUW.withdraw, (address(puppet)));
        uint256 choice = _pick(3);
        if (choice == 0) {
            puppet.meetMoney(Puppet.Manner.Refuse, address(0), "");
            _refused(IPoUW.PaymentFailed.selector, who, 0, withdraw);
            require(arena.credits(who) == creditOf[who], "10: a refused payment stays a credit");
        } else if (choice == 1 && who == address(puppet)) {
            puppet.meetMoney(Puppet.Manner.Act, address(arena), withdraw);
            (bool done,) = _send(who, 0, withdraw);
            require(!done, "paid once");
            _visit("withdraw again inside");
        } else {
            puppet.meetMoney(Puppet.Manner.Act, address(arena), abi.encodeCall(IPoUW.sync, ()));
            _must("sync inside a withdrawal", who, 0, withdraw);
        }
        puppet.meetMoney(Puppet.Manner.Accept, address(0), "");
    }

    /// @dev Drains the arena from where it stands, now or at a coming deadline, once a run from every state, and goes
    /// back.
    function _drainAndReturn() internal {
        uint256 time = clock;
        if (_chance(60)) _setClock(_deadline());
        bytes32 state = _state();
        if (visits[state] != 0) {
            _setClock(time);
            return;
        }
        uint256 snapshot = vm.snapshotState();
        uint256 before = calls;
        _drain();
        uint256 made = calls - before;
        require(vm.revertToStateAndDelete(snapshot), "back again");
        _setClock(time);
        calls += made;
        _visit(state);
    }

    /// @dev From here time and permissionless calls alone lead every unit of money to its owner.
    function _drain() internal {
        uint256 most = 2 * pooled.length + 3;
        for (uint256 i = 0; live || selected != 0 || pooled.length != 0; ++i) {
            require(i < most, "6: it ends");
            _setClock(clock + 10 * 365 days);
            _must("sync", stranger, 0, abi.encodeCall(IPoUW.sync, ()));
            if (live) _must("finalize", stranger, 0, abi.encodeCall(IPoUW.finalize, ()));
        }
        for (uint64 round = 1; round <= begun; ++round) {
            for (uint256 i = 0; i < revealers[round].length; ++i) {
                address miner = revealers[round][i];
                if (entryBooks[round][miner].reclaimed) continue;
                _must("reclaim", stranger, 0, abi.encodeCall(IPoUW.reclaim, (round, miner)));
            }
        }
        for (uint256 i = 1; i < actors.length; ++i) {
            if (creditOf[actors[i]] == 0) continue;
            _must("withdraw", actors[i], 0, abi.encodeCall(IPoUW.withdraw, (actors[i])));
        }
        uint256 held = ASSET == address(0) ? address(arena).balance : token.balanceOf(address(arena));
        require(held == creditOf[address(0)] + forced, "6: only what was burned or forced in is left");
        require(escrowed == 0 && bonds == 0, "6: nothing is owed");
    }

    /// @dev One of the live round's or of the selected task's, not before now.
    function _deadline() private returns (uint256 time) {
        Times memory t = _times();
        if (live) time = [t.t1, t.t2, t.t3, t.t4, t.t5, t.t6][_pick(6)];
        else time = selectedAt + (_chance(50) ? OPENS : CLOSES);
        if (time < clock) time = clock;
    }

    /// @dev Where the arena stands: the live round's phase, else the selected task's.
    function _state() private view returns (bytes32) {
        if (!live) {
            if (selected == 0) return "drain empty";
            if (clock < selectedAt + OPENS) return "drain selected";
            return clock < selectedAt + CLOSES ? bytes32("drain key window") : bytes32("drain key late");
        }
        Times memory t = _times();
        RoundBook storage book = roundBooks[begun];
        if (clock < t.t1) return "drain phase 1";
        if (!book.opened) return clock < t.t2 ? bytes32("drain not opened") : bytes32("drain never opened");
        if (clock < t.t3) return "drain reveals";
        if (clock < t.t4) return "drain reports";
        if (book.ruled) return "drain ruled";
        if (clock >= _decidedAt(book)) return "drain decided";
        return book.challenger != address(0) ? bytes32("drain challenged") : bytes32("drain challenges");
    }
}
