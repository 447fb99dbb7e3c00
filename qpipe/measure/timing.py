"""Interleaved timing of several sessions in one process.

Source: Georges, Buytaert, Eeckhout (2007), Statistically Rigorous Java Performance Evaluation: repeated processes,
steady state; interleaving in rotating order makes drift of the machine hit all sessions alike.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from qpipe.errors import EngineError
from qpipe.measure.clock import check_device_ns, check_ticks
from qpipe.measure.collector import no_collector
from qpipe.measure.feeds import Feeds, digest_of
from qpipe.measure.samples import Samples
from qpipe.plugins.backend import DeviceTimed, Session, Tensors
from qpipe.records.cell import Timing

Cpu = Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One timed run."""

    block: int
    batch: int
    engine: int
    wall_ns: int
    cpu_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Everything that is settled before the first timed run."""

    lanes: tuple[Session, ...]
    devices: tuple[DeviceTimed | None, ...]
    """The sessions that bring a clock; asked once, since to ask costs as much as a run of a small model."""
    feeds: Feeds
    rounds: Mapping[int, int]
    """Rounds per block, by batch size."""
    blocks: int
    seed: int
    cpu: Cpu


def time_sessions(
    sessions: Mapping[str, Session],
    feeds: Feeds,
    timing: Timing,
    *,
    threads: int = 1,
    seed: int = 0,
    load_ms: Mapping[str, float],
    expected: Mapping[str, str],
) -> Samples:
    """Raw latencies of all sessions at all batch sizes, from this one process.

    Rounds run every session once on the same input, in rotating order, in `timing.blocks` blocks. There are at least
    `timing.rounds` rounds per batch size, and more until `timing.min_seconds` are spent over all sizes, at most
    `timing.max_rounds`. The garbage collector rests meanwhile.

    Args:
        sessions: by name, all open at once.
        feeds: inputs per batch size (`make_feeds`).
        timing: the protocol.
        threads: of the target: with one thread CPU time is the calling thread's, else the process's.
        seed: turns the order of the first round; give each process another.
        load_ms: how long each session took to open, by name.
        expected: digest of the outputs for these feeds (`digest_outputs`) by session. The outputs of the last timed
            rounds are compared with it; a session that is not named here does not match.

    Raises:
        EngineError: there is nothing to time, a session refuses its input, or the clock of a device is too coarse.
    """
    if not sessions or not feeds or not all(feeds.values()):
        raise EngineError("there is nothing to time: no session, or no inputs")
    cpu: Cpu = time.thread_time_ns if threads == 1 else time.process_time_ns
    names = tuple(sessions)
    lanes = tuple(sessions.values())
    rounds = {size: _warm_up(lanes, feeds[size], timing, len(feeds)) for size in feeds}
    devices = tuple(one if isinstance(one, DeviceTimed) else None for one in lanes)
    plan = _Plan(lanes=lanes, devices=devices, feeds=feeds, rounds=rounds, blocks=timing.blocks, seed=seed, cpu=cpu)
    last: dict[tuple[int, int, int], Tensors] = {}
    with no_collector():
        runs = tuple(_timed_blocks(plan, last))
    _check_clock(devices, runs)
    digests = [_digest_of_last(session, lane, feeds, last) for lane, session in enumerate(lanes)]
    return Samples(
        engines=np.array(names, dtype=np.str_),
        process=np.zeros(len(runs), dtype=np.int64),
        block=np.array([run.block for run in runs], dtype=np.int64),
        batch=np.array([run.batch for run in runs], dtype=np.int64),
        engine=np.array([run.engine for run in runs], dtype=np.int64),
        wall_ns=np.array([run.wall_ns for run in runs], dtype=np.int64),
        cpu_ns=np.array([run.cpu_ns for run in runs], dtype=np.int64),
        load_ms=np.array([[load_ms[name] for name in names]]),
        outputs_match=np.array([[expected.get(name) == found for name, found in zip(names, digests, strict=True)]]),
    )


def _warm_up(lanes: tuple[Session, ...], inputs: tuple[Tensors, ...], timing: Timing, sizes: int) -> int:
    """Run every session a few times; gives the number of rounds per block that the protocol asks for."""
    seconds = []
    for turn in range(max(timing.warmup, 1)):
        begin = time.perf_counter()
        for session in lanes:
            session.run(inputs[turn % len(inputs)])
        seconds.append(time.perf_counter() - begin)
    wanted = timing.min_seconds / sizes / max(float(np.median(seconds)), 1e-9)
    # max_rounds caps what min_seconds asks for, never the rounds themselves.
    rounds = max(timing.rounds, min(int(np.ceil(wanted)), timing.max_rounds))
    return -(-rounds // timing.blocks)


def _timed_blocks(plan: _Plan, last: dict[tuple[int, int, int], Tensors]) -> Iterator[_Run]:
    """Every block passes over all batch sizes, so that each size is spread over the life of the process."""
    for block in range(plan.blocks):
        for size, inputs in plan.feeds.items():
            gc.collect()
            for number in range(plan.rounds[size]):
                turn = block * plan.rounds[size] + number
                feed = turn % len(inputs)
                for lane in _order(len(plan.lanes), turn + plan.seed):
                    wall_ns, cpu_ns, last[size, feed, lane] = _timed(plan, lane, inputs[feed])
                    yield _Run(block=block, batch=size, engine=lane, wall_ns=wall_ns, cpu_ns=cpu_ns)


def _timed(plan: _Plan, lane: int, inputs: Tensors) -> tuple[int, int, Tensors]:
    session, device, cpu = plan.lanes[lane], plan.devices[lane], plan.cpu
    wall_begin, cpu_begin = time.perf_counter_ns(), cpu()
    outputs = session.run(inputs)
    cpu_end, wall_end = cpu(), time.perf_counter_ns()
    if device is not None:  # a latency through a wire is not the engine's
        return *check_device_ns(device.device_ns), outputs
    return wall_end - wall_begin, cpu_end - cpu_begin, outputs


def _check_clock(devices: tuple[DeviceTimed | None, ...], runs: tuple[_Run, ...]) -> None:
    """Devices bring their own clocks; ours counts nanoseconds."""
    times: dict[tuple[int, int], list[int]] = {}
    for run in runs:
        if devices[run.engine] is not None:
            times.setdefault((run.batch, run.engine), []).append(run.wall_ns)
    if times:
        check_ticks(times.values())


def _order(count: int, turn: int) -> tuple[int, ...]:
    """Rotating order; every other cycle backwards, so that nobody always follows the same neighbour."""
    lanes = tuple((turn + step) % count for step in range(count))
    return lanes[::-1] if (turn // count) % 2 else lanes


def _digest_of_last(session: Session, lane: int, feeds: Feeds, last: Mapping[tuple[int, int, int], Tensors]) -> str:
    """Digest of the last timed outputs per feed; a feed that fewer rounds than feeds left out is run now."""
    return digest_of(
        {
            size: tuple(
                last[size, feed, lane] if (size, feed, lane) in last else session.run(inputs)
                for feed, inputs in enumerate(feeds[size])
            )
            for size in feeds
        }
    )
