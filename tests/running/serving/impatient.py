"""The worker, with less patience, so that a test need not wait for it."""

from airgap.running.serving import channel, sender, worker

worker.HEAD_SECONDS = 0.5
worker.LINGER_SECONDS = 0.5
channel.STALL_SECONDS = sender.STALL_SECONDS = 1.0
channel.BODY_SECONDS = 1.0
worker.MOST_CONNECTIONS = 60
sender.MOST_HELD = 8 << 20


class Worker(worker.Worker):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.idle.seconds = 0.5
