"""Storage without room: nothing is committed or lost, and the job goes on when there is room again."""

import time

import storage
from kubectl import expect

FULL_SECONDS = 60


def storage_is_full_for_a_minute(suite):
    suite.workers()
    job = suite.begin("full")
    job.wait_for_share(0.2)
    storage.fill()
    try:
        expect(not storage.has_room(), "the storage still has room")
        before = job.settled_count()
        time.sleep(FULL_SECONDS)
        expect(not storage.has_room(), "the storage had room before it was given some")
        expect(job.committed() == before, "parts were committed where there was no room")
        job.expect_running()
        told = job.logs(200)
    finally:
        storage.make_room()
    expect("cannot commit shard" in told, f"no coordinator says that commits fail:\n{told[-2000:]}")
    job.finish()
