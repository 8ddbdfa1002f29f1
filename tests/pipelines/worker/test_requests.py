"""What an image costs in requests to an S3 store, counted at a proxy before a real server."""

from dataclasses import replace

import pytest

from pipelines.worker.worker import Worker
from tests.conftest import write_picture
from tests.pipelines.worker.test_worker import row, tasks
from tests.servers import FaultProxy, connect

MOST = 16


@pytest.fixture
def proxied(seaweed, s3_environment):
    with FaultProxy(seaweed.endpoint) as proxy:
        s3_environment({**seaweed.environment, "AWS_ENDPOINT_URL": proxy.endpoint})
        yield proxy


def test_an_image_costs_few_requests(proxied, seaweed, tmp_path, spec):
    bucket = f"s3://{seaweed.bucket('requests')}"
    for name in ("a", "b", "c"):
        write_picture(tmp_path / f"{name}.png", ord(name))
        connect(seaweed.endpoint).put_file(str(tmp_path / f"{name}.png"), f"{bucket}/{name}.png".removeprefix("s3://"))
    worker = Worker(replace(spec, output=f"{bucket}/out"))
    worker.process(tasks(tmp_path, [row("a", image=f"{bucket}/a.png")]))  # connections and clocks
    proxied.requests.clear()
    rows = [row("b", image=f"{bucket}/b.png"), row("c", image=f"{bucket}/c.png")]
    done = worker.process(tasks(tmp_path, rows))
    assert [one.status for one in done] == ["ok", "ok"]
    assert proxied.requests.total() <= MOST * len(rows), dict(proxied.requests)
