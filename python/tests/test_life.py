"""Ends: closing, collecting, cancelling, Ctrl-C, threads and forks. Nothing may crash or hang."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import herald_engine

from .conftest import tiny_model

ENDLESS: Any = {"ignore_eos": True}


def long_engine() -> herald_engine.Engine:
    """An engine whose generations go on until they are ended: its context is long."""
    return herald_engine.Engine(tiny_model("llama"), threads=1, context=1_000_000, exact=True)


def test_use_after_close_is_an_exception(tiny: herald_engine.Engine) -> None:
    sequence, scheduler = tiny.sequence(), herald_engine.Scheduler(tiny)
    request = scheduler.submit([5, 6], **ENDLESS)
    next(request)
    request.close()
    assert list(request) == []
    with pytest.raises(herald_engine.ClosedError, match="the request is closed"):
        request.result()
    scheduler.close()
    with pytest.raises(herald_engine.ClosedError, match="the scheduler is closed"):
        scheduler.submit([5])
    sequence.close()
    sequence.close()
    sequence.cancel()
    uses: list[Callable[[], Any]] = [
        lambda: len(sequence),
        sequence.fork,
        sequence.usage,
        lambda: sequence.prefill([5]),
    ]
    for use in uses:
        with pytest.raises(herald_engine.ClosedError, match="the sequence is closed"):
            use()
    other = tiny.sequence()
    tiny.close()
    tiny.close()
    uses = [
        lambda: tiny.generate("a"),
        lambda: tiny.tokenize("a"),
        tiny.sequence,
        tiny.metrics,
        lambda: other.prefill([5]),
    ]
    for use in uses:
        with pytest.raises(herald_engine.ClosedError, match="the engine is closed"):
            use()
    assert len(other) == 0


def test_closing_while_others_call_is_safe() -> None:
    engine = long_engine()

    def work(index: int) -> str:
        try:
            for _ in range(1000):
                if index % 2:
                    engine.generate([5, 6 + index], max_tokens=8, **ENDLESS)
                else:
                    with engine.sequence() as sequence:
                        sequence.prefill([5, 6 + index] * 16)
            return "went on"
        except herald_engine.ClosedError:
            return "closed"
        except herald_engine.InternalError:
            # The scheduler ended under a request.
            return "closed"

    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(work, index) for index in range(6)]
        threading.Timer(0.3, engine.close).start()
        ends = {future.result(60) for future in futures}
    assert "closed" in ends


def test_many_threads_share_an_engine(tiny: herald_engine.Engine) -> None:
    alone = {first: tiny.generate([first, 6], max_tokens=12, **ENDLESS).tokens for first in range(5, 13)}
    with ThreadPoolExecutor(8) as pool:
        together = pool.map(lambda first: tiny.generate([first, 6], max_tokens=12, **ENDLESS).tokens, alone)
    assert list(together) == list(alone.values())


def test_a_scheduler_refuses_more_than_it_may_hold() -> None:
    with long_engine() as engine, herald_engine.Scheduler(engine, max_running=1, max_waiting=1) as scheduler:
        running = scheduler.submit([5, 6], client="a", **ENDLESS)
        next(running)
        waiting = scheduler.submit([5, 6], client="b", **ENDLESS)
        with pytest.raises(herald_engine.QueueFullError):
            scheduler.submit([5, 6])
        with pytest.raises(TimeoutError, match="within 0 seconds"):
            waiting.result(0)
        running.cancel()
        assert running.result().finish is herald_engine.Finish.CANCELLED
        # It has left the queue.
        next(waiting)
        late = scheduler.submit([5, 6], deadline=0.2, **ENDLESS).result
        waiting.cancel()
        assert late().finish is herald_engine.Finish.DEADLINE


def test_what_is_collected_is_ended() -> None:
    with long_engine() as engine:
        request = engine.stream([5, 6], **ENDLESS)
        next(request)
        del request
        gc.collect()
        for _ in range(100):
            if engine.metrics()["serving"]["running"] == 0:
                break
            threading.Event().wait(0.05)
        else:
            pytest.fail("the request still runs")


def interrupted(code: str) -> None:
    """Runs code in a process, which prints when it is at work, and interrupts it: it must say so, and end."""
    model = str(tiny_model("llama"))
    # Who runs tests in the background may have them ignore it.
    head = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    head += f"import herald_engine\nengine = herald_engine.Engine({model!r}, threads=1, context=1_000_000)\n"
    command = [sys.executable, "-c", head + code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail("Ctrl-C didn't end it")
    assert output == "interrupted\n", output
    assert process.returncode == 0


CATCH = "except KeyboardInterrupt:\n    engine.close()\n    print('interrupted')\n"


def test_ctrl_c_ends_a_stream() -> None:
    loop = "    for number, piece in enumerate(engine.stream([5, 6], ignore_eos=True)):\n"
    interrupted("try:\n" + loop + "        number or print('working', flush=True)\n" + CATCH)


def test_ctrl_c_ends_a_whole_answer() -> None:
    code = "try:\n    print('working', flush=True)\n    engine.generate([5, 6], ignore_eos=True)\n"
    interrupted(code + CATCH)


def test_ctrl_c_ends_a_sequences_prompt_and_leaves_it_usable() -> None:
    code = (
        "sequence = engine.sequence()\n"
        "try:\n"
        "    print('working', flush=True)\n"
        "    sequence.prefill([5] * 900_000, logits=False)\n"
        "except KeyboardInterrupt:\n"
        "    sequence.truncate(0)\n"
        "    assert sequence.generate([5, 6], max_tokens=2, ignore_eos=True).generated_tokens == 2\n"
        "    print('interrupted')\n"
    )
    interrupted(code)


def test_asyncio(tiny: herald_engine.Engine) -> None:
    expected = tiny.generate([5, 6], max_tokens=12, **ENDLESS)

    async def work() -> None:
        answers = await asyncio.gather(*(tiny.agenerate([5, 6], max_tokens=12, **ENDLESS) for _ in range(20)))
        assert all(answer.tokens == expected.tokens for answer in answers)
        pieces = [piece async for piece in tiny.astream([5, 6], max_tokens=12, **ENDLESS)]
        assert "".join(map(str, pieces)) == expected.text
        assert len(await tiny.aembed(["a"])) == 1
        with pytest.raises(herald_engine.InvalidArgumentError):
            await tiny.agenerate([5, 6], top_p=2.0)

    asyncio.run(work())


def test_asyncio_chats(smollm2: herald_engine.Engine) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]

    async def work() -> None:
        answer = await smollm2.achat(messages, max_tokens=8)
        await with_pieces(await smollm2.achat(messages, stream=True, max_tokens=8), answer.text)

    async def with_pieces(request: herald_engine.Request, expected: str) -> None:
        assert "".join([str(piece) async for piece in request]) == expected

    asyncio.run(work())


def test_an_asyncio_cancel_ends_the_generation_and_the_loop_goes_on() -> None:
    async def work(engine: herald_engine.Engine) -> None:
        async def read() -> None:
            async for _ in engine.astream([5, 6], **ENDLESS):
                started.set()

        started = asyncio.Event()
        tasks = [asyncio.create_task(read()), asyncio.create_task(engine.agenerate([5, 7], **ENDLESS))]
        await started.wait()
        for task in tasks:
            task.cancel()
        assert [type(end) for end in await asyncio.gather(*tasks, return_exceptions=True)] == [
            asyncio.CancelledError
        ] * 2
        while engine.metrics()["serving"]["running"]:
            await asyncio.sleep(0.02)

    with long_engine() as engine:
        asyncio.run(asyncio.wait_for(work(engine), 60))


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_child_is_told(tiny: herald_engine.Engine) -> None:
    request = tiny.stream([5, 6], **ENDLESS)
    sequence = tiny.sequence()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for use in (lambda: tiny.tokenize("a"), lambda: tiny.generate([5]), lambda: next(request), sequence.fork):
                try:
                    use()
                except herald_engine.UnsupportedError:
                    continue
                os._exit(2)
            tiny.close()
            with herald_engine.Engine(tiny_model("llama"), threads=1) as own:
                code = 0 if own.generate([5, 6], max_tokens=2).generated_tokens else 3
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    next(request)
    request.close()
