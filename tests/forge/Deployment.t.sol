// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {PoUW} from "../../contracts/PoUW.sol";
import {Stage} from "./Stage.sol";

/// @title What may be deployed
contract DeploymentTest is Stage {
    uint40 private constant YEAR = 365 days;

    function test_constructor__windows__areFromOneSecondToAYear() public {
        for (uint256 window = 0; window < 6; ++window) {
            _refuses(_withWindow(_usual(), window, 0), _nameOf(window));
            _accepts(_withWindow(_usual(), window, 1));
            _accepts(_withWindow(_usual(), window, YEAR));
            _refuses(_withWindow(_usual(), window, YEAR + 1), _nameOf(window));
        }
    }

    function test_constructor__noArbiter__hasNoWindowsForOne() public {
        IPoUW.Parameters memory p = _usual();
        p.arbiter = address(0);
        _refuses(p, "challengeWindow");
        p.challengeWindow = 0;
        _refuses(p, "rulingWindow");
        p.rulingWindow = 0;
        _accepts(p);
    }

    function test_constructor__amounts__areBounded() public {
        IPoUW.Parameters memory p = _usual();
        p.minReward = 0;
        _refuses(p, "minReward");
        p.minReward = 1;
        (p.publisherBondBps, p.oracleFeeBps) = (10_000, 10_000);
        _accepts(p);
        p.publisherBondBps = 10_001;
        _refuses(p, "publisherBondBps");
        (p.publisherBondBps, p.oracleFeeBps) = (0, 10_001);
        _refuses(p, "oracleFeeBps");
        p.oracleFeeBps = 0;
        _accepts(p);
    }

    function test_constructor__committee__isOneToSixteenDistinctMembers() public {
        _refuses(_withCommittee(0, 0), "oracles");
        _accepts(_withCommittee(1, 1));
        _accepts(_withCommittee(16, 9));
        _refuses(_withCommittee(17, 9), "oracles");
        IPoUW.Parameters memory p = _withCommittee(3, 2);
        p.oracles[2] = p.oracles[0];
        _refuses(p, "oracles");
        p.oracles[2] = address(0);
        _refuses(p, "oracles");
    }

    function test_constructor__threshold__isMoreThanHalfAndNoMoreThanAll() public {
        for (uint8 members = 1; members <= 16; ++members) {
            _refuses(_withCommittee(members, members / 2), "threshold");
            _accepts(_withCommittee(members, members / 2 + 1));
            _accepts(_withCommittee(members, members));
            _refuses(_withCommittee(members, members + 1), "threshold");
        }
    }

    function test_parameters__anyDeployment__areThoseOfTheConstructor() public {
        _deploy(_usual());
        require(keccak256(abi.encode(arena.parameters())) == keccak256(abi.encode(_usual())), "as they were given");
    }

    function _withCommittee(uint256 members, uint8 threshold) private view returns (IPoUW.Parameters memory p) {
        p = _usual();
        p.oracles = new address[](members);
        for (uint256 i = 0; i < members; ++i) {
            p.oracles[i] = _oracle(i);
        }
        p.threshold = threshold;
    }

    function _withWindow(IPoUW.Parameters memory p, uint256 window, uint40 length)
        private
        pure
        returns (IPoUW.Parameters memory)
    {
        if (window == 0) p.phase1 = length;
        else if (window == 1) p.keyWindow = length;
        else if (window == 2) p.revealWindow = length;
        else if (window == 3) p.reportWindow = length;
        else if (window == 4) p.challengeWindow = length;
        else p.rulingWindow = length;
        return p;
    }

    function _nameOf(uint256 window) private pure returns (string memory) {
        return ["phase1", "keyWindow", "revealWindow", "reportWindow", "challengeWindow", "rulingWindow"][window];
    }

    function _refuses(IPoUW.Parameters memory p, string memory name) private {
        try new PoUW(p) {
            revert("was accepted");
        } catch (bytes memory why) {
            bytes memory expected = abi.encodeWithSelector(IPoUW.InvalidParameter.selector, name);
            require(keccak256(why) == keccak256(expected), name);
        }
    }

    function _accepts(IPoUW.Parameters memory p) private {
        new PoUW(p);
    }
}
