"""The worker's end, asked for and not."""

import asyncio

from safelight.app.server.config import Serving
from safelight.app.server.store import Store
from safelight.app.server.supervisor import Supervisor

PATIENCE = 300.0


def test_a_worker_that_was_asked_to_end_has_not_died(model_folder, tmp_path, caplog):
    serving = Serving(state=tmp_path, device="cpu", engine="torch")
    store = Store(serving.database)
    reigns = []

    async def live() -> None:
        supervisor = Supervisor(
            serving.working(str(model_folder)), store, lambda _: None, lambda: reigns.append(1)
        )
        supervisor.start()
        while not supervisor.ready:
            await asyncio.sleep(0.1)
        supervisor.quit()  # as the server's doors are closed, some time before it stops
        while supervisor.ready:
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        assert supervisor.deaths == 0
        await supervisor.stop(1.0)

    asyncio.run(asyncio.wait_for(live(), PATIENCE))
    store.close()
    assert len(reigns) == 1
    assert "worker died" not in caplog.text


def test_one_that_is_killed_has(model_folder, tmp_path, caplog):
    serving = Serving(state=tmp_path, device="cpu", engine="torch")
    store = Store(serving.database)

    async def live() -> None:
        supervisor = Supervisor(
            serving.working(str(model_folder)), store, lambda _: None, lambda: None
        )
        supervisor.start()
        while not supervisor.ready:
            await asyncio.sleep(0.1)
        supervisor._kill()
        while supervisor.deaths == 0:
            await asyncio.sleep(0.1)
        await supervisor.stop(1.0)

    asyncio.run(asyncio.wait_for(live(), PATIENCE))
    store.close()
    assert "worker died" in caplog.text
