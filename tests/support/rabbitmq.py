"""A RabbitMQ node of the test run: started from the installed programs, on ports and in a folder of its own.

It reads nothing of the machine's own node (``/etc/rabbitmq``, ``/var/lib/rabbitmq``), has an epmd of its own,
and runs as whoever runs the tests.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .amqp import Probe
from .erlang import program_of_erlang, said_by
from .processes import end, free_port, kill_session, run_as, run_folder, spawn
from .programs import find_folder
from .waiting import eventually_sync

START_TIMEOUT = 90.0
CTL_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0

DEFAULT_CONSUMER_TIMEOUT = 1_800_000
"""Milliseconds."""


class PrivateRabbitMQ:
    """One node; not started until `start`. Ports and data survive `stop` and `kill`.

    ``channel_tick``: milliseconds between a channel's looks for deliveries that are unacked for too long (see
    `consumer_timeout`). ``extra_conf``: more lines of ``rabbitmq.conf``.
    """

    def __init__(self, *, channel_tick: int = 500, extra_conf: tuple[str, ...] = ()) -> None:
        self._programs = find_folder(_FOLDERS, "rabbitmqctl", "rabbitmq-server")
        self.folder = run_folder("mq")
        self.port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self._env = _environment(self.folder, epmd_port=free_port(), dist_port=free_port())
        self._node: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._alarmed = self._hurried = False
        self._configure(channel_tick, extra_conf)

    @property
    def log(self) -> str:
        """What the node has printed and logged."""
        files = [self.folder / "output", *sorted((self.folder / "log").glob("*.log"))]
        return "\n".join(file.read_text(errors="replace") for file in files if file.exists())

    @property
    def running(self) -> bool:
        """Whether its process is running."""
        return self._node is not None and self._node.poll() is None

    def start(self) -> None:
        """Start the node and wait until it answers an AMQP handshake."""
        assert not self.running
        self._start_epmd()
        self._node = spawn([str(self._programs / "rabbitmq-server")], env=self._env, output=self.folder / "output")
        eventually_sync(self._answers, START_TIMEOUT, "the private RabbitMQ node to answer")

    def stop(self) -> None:
        """Stop the node cleanly, as an administrator would."""
        if self._node is not None:
            end(self._node, signal.SIGTERM, STOP_TIMEOUT)
            self._node = None

    def kill(self) -> None:
        """Send SIGKILL: a crash, in which nothing is flushed."""
        if self._node is not None:
            kill_session(self._node)
            self._node.wait()
            self._node = None

    def pause(self) -> None:
        """Send SIGSTOP: its sockets stay open, but nothing answers until `unpause`."""
        assert self._node is not None
        self._node.send_signal(signal.SIGSTOP)

    def unpause(self) -> None:
        """Send SIGCONT, which ends `pause`."""
        assert self._node is not None
        self._node.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop the node cleanly, and start it again."""
        self.stop()
        self.start()

    def wipe(self) -> None:
        """Delete all queues and messages. The node must be stopped."""
        assert not self.running, "Stop or kill the node first."
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def close(self) -> None:
        """Stop the node and remove its folder. May be called at any time, and more than once."""
        self.kill()
        if self._epmd is not None:
            kill_session(self._epmd)
            self._epmd.wait()
            self._epmd = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` against this node; returns what it printed."""
        return run_as(None, [str(self._programs / "rabbitmqctl"), "-q", *arguments], env=self._env, timeout=CTL_TIMEOUT)

    def evaluate(self, expression: str) -> str:
        """What an Erlang expression, which has to give ``ok``, prints in the node. Costs milliseconds.

        Without Erlang's ``erl_call``, `ctl` does it: that starts a virtual machine each time, of about a second.
        """
        said = (said_by(expression, self._env) or self.ctl("eval", f"{expression}.")).rstrip()
        printed, _, result = said.rpartition("\n")
        if result not in ("{ok, ok}", "ok"):
            raise RuntimeError(f"{expression} gave {said}")
        return printed

    def queue_depths(self, prefix: str = "") -> dict[str, int]:
        """Messages of each queue whose name begins with ``prefix``: ready and unacked together."""
        return self._of_queues("messages", prefix)

    def queue_consumers(self, prefix: str = "") -> dict[str, int]:
        """Consumers of each queue whose name begins with ``prefix``."""
        return self._of_queues("consumers", prefix)

    def depth(self, queue: str) -> tuple[int, int] | None:
        """(ready messages, consumers) of ``queue``; ``None``: no such queue."""
        with Probe(self.url) as probe:
            return probe.depth(queue)

    def delete_queue(self, queue: str) -> None:
        """Delete ``queue`` although it has consumers."""
        with Probe(self.url) as probe:
            probe.delete(queue)

    def close_connections(self, reason: str = "closed by a test") -> None:
        """Close all client connections from the server's side, with the AMQP error 320."""
        self.ctl("close_all_connections", reason)

    def memory_alarm(self, on: bool) -> None:
        """Raise or clear the memory alarm, which blocks publishers."""
        self._alarmed = on
        self.ctl("set_vm_memory_high_watermark", *(["absolute", "1"] if on else ["0.4"]))

    def consumer_timeout(self, milliseconds: int | None) -> None:
        """How long a delivery may stay unacked, for channels opened from now on; ``None``: the default.

        The server takes any positive number (its default is 30 minutes), and compares at each tick of a
        channel, here every ``channel_tick`` milliseconds (its default: 60,000).
        """
        self._hurried = milliseconds is not None
        value = DEFAULT_CONSUMER_TIMEOUT if milliseconds is None else milliseconds
        self.evaluate(f"application:set_env(rabbit, consumer_timeout, {value})")

    def write_down(self) -> None:
        """Make the node write the records of its queues to disk.

        By itself it does so seconds later, and a crash before that loses new queues.
        """
        self.evaluate("mnesia:sync_log()")

    def heal(self) -> None:
        """Undo what a test may have done to a running node: pause, alarm, timeout."""
        if not self.running:
            return
        self.unpause()
        if self._alarmed:
            self.memory_alarm(False)
        if self._hurried:
            self.consumer_timeout(None)

    def _of_queues(self, item: str, prefix: str) -> dict[str, int]:
        lines = [line.rsplit(maxsplit=1) for line in self.evaluate(_PRINT_QUEUES % (item, item)).splitlines()]
        return {name: int(number) for name, number in lines if name.startswith(prefix)}

    def _configure(self, channel_tick: int, extra_conf: tuple[str, ...]) -> None:
        for name in ("home", "log", "data"):
            (self.folder / name).mkdir()
        lines = [f"listeners.tcp.1 = 127.0.0.1:{self.port}", "disk_free_limit.absolute = 50MB", *extra_conf]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        # The tick has no key in rabbitmq.conf.
        (self.folder / "advanced.config").write_text(f"[{{rabbit, [{{channel_tick_interval, {channel_tick}}}]}}].\n")
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "env.conf").touch()

    def _start_epmd(self) -> None:
        if self._epmd is not None:
            return
        program = program_of_erlang("epmd")
        if program is None:
            return  # the node will start one itself, as a daemon on our port
        command = [program, "-port", self._env["ERL_EPMD_PORT"], "-address", "127.0.0.1"]
        self._epmd = spawn(command, env=self._env, output=self.folder / "epmd-output")

    def _answers(self) -> bool:
        if not self.running:
            raise RuntimeError(f"The private RabbitMQ node ended while starting:\n{self.log[-4000:]}")
        try:
            Probe(self.url).close()
        except OSError:
            return False
        return True


class GivenRabbitMQ:
    """The server of ``JQ_TEST_AMQP_URL``: tests may use it, but must not break it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def start(self) -> None:
        """Check that the server answers."""
        Probe(self.url).close()

    def close(self) -> None:
        """Do nothing: the server is not ours to stop."""

    def depth(self, queue: str) -> tuple[int, int] | None:
        """(ready messages, consumers) of ``queue``; ``None`` when it does not exist."""
        with Probe(self.url) as probe:
            return probe.depth(queue)


# A queue that is deleted meanwhile gives no number, and is left out.
_PRINT_QUEUES = """lists:foreach(fun(Queue) ->
    case catch rabbit_amqqueue:info(Queue, [%s]) of
        [{%s, Number}] when is_integer(Number) ->
            io:format("~s ~b~n", [element(4, amqqueue:get_name(Queue)), Number]);
        _ -> ok
    end
end, rabbit_amqqueue:list(<<"/">>))"""

_FOLDERS = (
    "/usr/lib/rabbitmq/bin",  # Debian's and the vendor's; /usr/sbin has a wrapper that changes the user
    "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin",
    "/opt/rabbitmq/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
)


def _environment(folder: Path, *, epmd_port: int, dist_port: int) -> Mapping[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(folder / "home"),  # Erlang creates its cookie there
        "RABBITMQ_NODENAME": f"{folder.name}@localhost",
        "RABBITMQ_DIST_PORT": str(dist_port),
        "ERL_EPMD_PORT": str(epmd_port),
        "RABBITMQ_CTL_DIST_PORT_MAX": "36999",  # several ctl at once
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RUNNING_UNDER_SYSTEMD": "true",  # the start script becomes the node, so that our pid is the node's
    }
