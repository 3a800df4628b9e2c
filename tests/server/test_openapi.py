"""Whatever the API's own description allows, and much that it does not, is answered without a
fault.
"""

import contextlib
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from serving import Running

from safelight.app.server.config import Limits, Serving
from safelight.app.server.service import Service

FEW = settings(
    max_examples=4,
    phases=[Phase.generate],
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
_ON_PURPOSE = (501, 503)  # what the web UI has and we have not; no worker


class Unworked(Service):
    """A service whose jobs are cancelled as soon as they are taken in: it has no worker."""

    async def submit(self, *arguments, **named):
        job, new = await super().submit(*arguments, **named)
        return await self.cancel(job.id) or job, new


@pytest.fixture(scope="module")
def unworked(models, tmp_path_factory) -> Iterator[Running]:
    serving = Serving(
        models=(str(models / "tiny"),),
        state=tmp_path_factory.mktemp("unworked"),
        limits=Limits(body=2**20, given_pixels=2**16),
        grace=1.0,
    )
    service = Unworked(serving, offline=True)
    service.supervisor.start = lambda: None
    running = Running(service)
    yield running
    running.stop()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_is_answered_by_a_fault(unworked, mode):
    described = schemathesis.openapi.from_url(f"{unworked.url}/openapi.json")
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) > 35
    faults: list[str] = []
    answers: list[int] = []
    for operation in operations:
        try:
            cases = operation.as_strategy(generation_mode=mode)
        except Exception:  # nothing can be wrong with an address that takes nothing
            if mode is GenerationMode.POSITIVE:
                raise
            continue
        with contextlib.suppress(Unsatisfiable):
            try_all(cases, operation.label, answers, faults)
    assert faults == []
    assert len(answers) > 60


def try_all(cases, label: str, answers: list[int], faults: list[str]) -> None:
    """Asks with each case, and notes the answers."""

    @FEW
    @given(case=cases)
    def tried(case) -> None:
        answer = case.call()
        answers.append(answer.status_code)
        if answer.status_code >= 500 and answer.status_code not in _ON_PURPOSE:
            faults.append(f"{label}: {answer.status_code} {case.body!r} {answer.text}"[:500])

    tried()
