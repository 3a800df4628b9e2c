"""A server under many clients: what it answers, whether it loses a job, its order and its memory.

`python benchmarks/serve.py [--clients 100] [--seconds 120] [--queue 64] [--model default]
[--steps 2] [--batch 4] [--output serve.json]` starts `safelight serve` on a free port of the
loopback address and a folder of its own, and lets each client hand in one job after the other (a
quarter of them too many at once, so that the queue refuses), wait for it and fetch its picture. It
ends with status 1 if any answer was an error but 429, any job that was taken in has no result or
two, or a picture is not there. Told are also the pictures a second, the seconds from a job's coming
to its end, how far jobs of equal priority were begun out of the order of their coming (a batch
takes along what may share it), and the memory of server and worker over the time.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

_EVERY = 2.0  # seconds between two looks at the memory
_FLAT = 1.15  # the most that memory may grow by from the second quarter of the time to the last


@dataclass
class Seen:
    """What the clients saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    jobs: dict[str, dict[str, object]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    memory: dict[str, list[int]] = field(default_factory=lambda: {"server": [], "worker": []})


async def client(number: int, http: httpx.AsyncClient, seen: Seen, until: float, steps: int):
    place = 0
    while time.monotonic() < until:
        place += 1
        asked = {"prompt": f"a red ball {number}", "seed": place, "steps": steps}
        answer = await http.post("/v1/jobs", json=asked)
        seen.statuses[answer.status_code] += 1
        if answer.status_code == 429:
            await asyncio.sleep(min(5, int(answer.headers["Retry-After"])))
            continue
        if answer.status_code != 202:
            seen.faults.append(f"{answer.status_code}: {answer.text[:200]}")
            continue
        identity = answer.json()["id"]
        seen.jobs[identity] = {}
        await followed(http, identity, seen)


async def followed(http: httpx.AsyncClient, identity: str, seen: Seen) -> None:
    async with http.stream("GET", f"/v1/jobs/{identity}/events") as stream:
        async for _ in stream.aiter_lines():
            pass
    job = (await http.get(f"/v1/jobs/{identity}")).json()
    seen.jobs[identity] = job
    if job["state"] != "done" or [one["place"] for one in job["pictures"]] != [0]:
        seen.faults.append(f"job {identity} is {job['state']}: {job['error']}")
        return
    picture = await http.get(job["pictures"][0]["url"])
    seen.statuses[picture.status_code] += 1
    if not picture.content.startswith(b"\x89PNG"):
        seen.faults.append(f"job {identity} has no picture")


async def memory(server: int, seen: Seen, until: float) -> None:
    while time.monotonic() < until:
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        for name, pid in (("server", server), *(("worker", int(child)) for child in children)):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            seen.memory[name].append(pages * os.sysconf("SC_PAGE_SIZE"))
        await asyncio.sleep(_EVERY)


async def load(url: str, server: int, clients: int, seconds: float, steps: int) -> Seen:
    seen = Seen()
    limits = httpx.Limits(max_connections=clients + 10)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as http:
        while (await http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.5)
        until = time.monotonic() + seconds
        await asyncio.gather(
            memory(server, seen, until),
            *(client(i, http, seen, until, steps) for i in range(clients)),
        )
        listed, before = [], None
        while True:  # nothing may be there that no client handed in, and nothing may be missing
            query = {"limit": 100, **({} if before is None else {"before": before})}
            page = (await http.get("/v1/jobs", params=query)).json()
            listed += [job["id"] for job in page["jobs"]]
            before = page["next"]
            if before is None:
                break
        if sorted(listed) != sorted(seen.jobs):
            seen.faults.append(f"{len(seen.jobs)} jobs were handed in, {len(listed)} are kept")
    return seen


def told(seen: Seen, seconds: float) -> dict[str, object]:
    jobs = sorted(seen.jobs.values(), key=lambda job: job["created"])
    begun = sorted(jobs, key=lambda job: job["started"])
    places = {job["id"]: i for i, job in enumerate(begun)}
    waits = [job["ended"] - job["created"] for job in jobs]
    growth = {}
    for name, sizes in seen.memory.items():
        quarter = max(1, len(sizes) // 4)
        early, late = sizes[quarter : 2 * quarter] or sizes, sizes[-quarter:]
        growth[name] = statistics.mean(late) / statistics.mean(early)
    return {
        "statuses": dict(seen.statuses),
        "jobs": len(jobs),
        "jobs a second": round(len(jobs) / seconds, 2),
        "median seconds": round(statistics.median(waits), 2),
        "longest seconds": round(max(waits), 2),
        "most places out of order": max(abs(places[job["id"]] - i) for i, job in enumerate(jobs)),
        "memory growth": {name: round(grown, 3) for name, grown in growth.items()},
        "memory MB": {name: round(sizes[-1] / 2**20) for name, sizes in seen.memory.items()},
        "faults": seen.faults[:20],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--queue", type=int, default=64)
    parser.add_argument("--model", default="default")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "safelight.app.cli", "serve", "--port", "0"]
        command += ["--state", state, "--model", options.model, "--log-level", "error"]
        command += ["--queue", str(options.queue), "--batch", str(options.batch)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            match = re.search(r"http://\S+?(?=;)", server.stdout.readline())
            assert match, "the server did not start"
            running = load(match[0], server.pid, options.clients, options.seconds, options.steps)
            seen = asyncio.run(running)
        finally:
            server.terminate()
            server.wait()
    figures = told(seen, options.seconds)
    flat = all(grown < _FLAT for grown in figures["memory growth"].values())
    print(json.dumps({**figures, "flat": flat}, indent=2))
    if options.output is not None:
        options.output.write_text(json.dumps(figures))
    return 0 if flat and not seen.faults else 1


if __name__ == "__main__":
    sys.exit(main())
