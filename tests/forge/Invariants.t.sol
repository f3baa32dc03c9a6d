// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {PlainToken} from "../../contracts/test/PlainToken.sol";
import {vm} from "./Cheats.sol";
import {HostileToken} from "./HostileToken.sol";
import {Players} from "./Players.sol";
import {Stage} from "./Stage.sol";

/// @title The ten invariants of an arena, after every move of its players
/// @notice 1. The contract holds what it owes. 2. A task's reward leaves escrow once. 3. Selected is the highest
/// reward, then the lowest id. 4. Only its owner can make a commitment count. 5. Reveals above a winner lose their
/// bond. 6. Time and permissionless calls lead every unit of money to its owner. 7. Headers form one chain. 8. Rounds
/// do not overlap. 9. After `_sync`, `_sync` changes nothing. 10. Nobody's bond depends on a stranger.
abstract contract InvariantsTest is Stage {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Players internal players;

    function _play(IPoUW.Parameters memory p, bool hostile) internal {
        players = new Players(p, hostile);
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(players);
    }

    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(players), new bytes4[](1));
        targets[0].selectors[0] = Players.play.selector;
    }

    function invariant_theTen__afterEveryMove__hold() external view {
        players.check();
    }

    function afterInvariant() external {
        players.drain();
        players.tell(string.concat(vm.envOr("VISITS", string(".build/visits")), "/", _name()));
    }

    function _name() internal pure virtual returns (string memory);
}

contract EtherInvariantsTest is InvariantsTest {
    function setUp() public {
        _play(_usual(), false);
    }

    function _name() internal pure override returns (string memory) {
        return "ether";
    }
}

contract TokenInvariantsTest is InvariantsTest {
    function setUp() public {
        IPoUW.Parameters memory p = _usual();
        p.asset = address(new HostileToken());
        _play(p, true);
    }

    function _name() internal pure override returns (string memory) {
        return "token";
    }
}

contract AloneInvariantsTest is InvariantsTest {
    function setUp() public {
        IPoUW.Parameters memory p = _usual();
        address[] memory one = new address[](1);
        one[0] = p.oracles[0];
        (p.oracles, p.threshold, p.arbiter, p.challengeWindow, p.rulingWindow) = (one, 1, address(0), 0, 0);
        p.asset = address(new PlainToken());
        _play(p, false);
    }

    function _name() internal pure override returns (string memory) {
        return "alone";
    }
}
