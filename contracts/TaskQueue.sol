// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "./IPoUW.sol";

/// @title The pool's order
/// @notice A doubly linked list of tasks by reward, highest first, ties by lowest id. With a fresh hint every change
/// costs the same at any length; a stale hint costs its caller the walk, never more.
/// @dev Task 0 is the two ends at once: its `below` is the head of the pool, its `above` the last task.
library TaskQueue {
    using TaskQueue for mapping(uint64 taskId => IPoUW.Task);

    /// @notice The task with the highest reward, 0 if the pool is empty.
    function head(mapping(uint64 taskId => IPoUW.Task) storage tasks) internal view returns (uint64) {
        return tasks[0].below;
    }

    /// @notice The task right below which (reward, taskId) belongs, 0 for the head.
    /// @param hint where to begin; the head where it is not pooled
    function locate(mapping(uint64 taskId => IPoUW.Task) storage tasks, uint128 reward, uint64 taskId, uint64 hint)
        internal
        view
        returns (uint64 above)
    {
        if (tasks[hint].pooled) above = hint;
        while (above != 0 && !tasks.ranksAbove(above, reward, taskId)) above = tasks[above].above;
        uint64 below = tasks[above].below;
        while (below != 0 && tasks.ranksAbove(below, reward, taskId)) {
            above = below;
            below = tasks[below].below;
        }
    }

    /// @notice Ids in order, at most `limit`, after task `from` (0: from the head).
    function list(mapping(uint64 taskId => IPoUW.Task) storage tasks, uint64 from, uint256 limit)
        internal
        view
        returns (uint64[] memory taskIds)
    {
        uint256 length = 0;
        for (uint64 id = tasks[from].below; id != 0 && length < limit; id = tasks[id].below) {
            ++length;
        }
        taskIds = new uint64[](length);
        for (uint256 i = 0; i < length; ++i) {
            taskIds[i] = from = tasks[from].below;
        }
    }

    /// @notice Put a task whose reward is set into its place.
    function insert(mapping(uint64 taskId => IPoUW.Task) storage tasks, uint64 taskId, uint64 hint) internal {
        IPoUW.Task storage task = tasks[taskId];
        uint64 above = tasks.locate(task.reward, taskId, hint);
        uint64 below = tasks[above].below;
        (task.above, task.below, task.pooled) = (above, below, true);
        tasks[above].below = taskId;
        tasks[below].above = taskId;
    }

    /// @notice Take a pooled task out.
    function remove(mapping(uint64 taskId => IPoUW.Task) storage tasks, uint64 taskId) internal {
        IPoUW.Task storage task = tasks[taskId];
        (uint64 above, uint64 below) = (task.above, task.below);
        tasks[above].below = below;
        tasks[below].above = above;
        (task.above, task.below, task.pooled) = (0, 0, false);
    }

    /// @notice Whether task `other` comes before (reward, taskId): higher reward, then lower id.
    function ranksAbove(mapping(uint64 taskId => IPoUW.Task) storage tasks, uint64 other, uint128 reward, uint64 taskId)
        internal
        view
        returns (bool)
    {
        uint128 otherReward = tasks[other].reward;
        return otherReward > reward || (otherReward == reward && other < taskId);
    }
}
