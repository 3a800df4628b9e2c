"""What tests of the server share."""

import httpx


def wait_for(client: httpx.Client, identity: str, expected: str = "done") -> dict:
    with client.stream("GET", f"/v1/jobs/{identity}/events") as stream:
        for _ in stream.iter_lines():
            pass
    job = client.get(f"/v1/jobs/{identity}").json()
    assert job["state"] == expected, job
    return job
