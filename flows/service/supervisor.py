"""make serve: the whole service on one machine, on loopback, with authentication. Ctrl-C ends all of it.

Starts a Prefect server, applies prefect.yaml, and keeps running: warm processes, one that forks for commands of DVC, a worker for
the pool `lmeraser`, one worker a GPU for the pool `gpu`. What dies is started again. Everything it keeps lies in `.lmeraser/`
(mode 0700).
"""

import argparse
import fcntl
import secrets
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from flows import processes
from flows.project import Project
from flows.run import devices
from flows.service.upkeep import vacuum
from lmeraser.core.digest import readable_json
from lmeraser.core.errors import LmeraserError, ProjectError, StepFailedError
from lmeraser.core.files import write_atomically
from lmeraser.core.own_code import PROJECT_VARIABLE
from lmeraser.core.progress import say

HOST = "127.0.0.1"
STARTING = 120  # s that the server has to come up
PATIENCE = 15  # s that a child has to end


@dataclass
class Child:
    """A process that must run. `failures` counts quick ends, so that a hopeless one is not started for ever."""

    name: str
    command: list[str]
    env: dict[str, str]
    process: processes.Service | None = None
    started: float = 0.0
    failures: int = 0


@dataclass
class Service:
    project: Project
    port: int
    children: list[Child] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/api"

    @property
    def logs(self) -> Path:
        return self.project.layout.private_state / "logs"

    def environment(self, auth: str) -> dict[str, str]:
        """Of every child; the server's password stands in the environment, never on a command line."""
        return processes.base_environment() | {
            PROJECT_VARIABLE: str(self.project.layout.root),
            "PYTHONPATH": str(self.project.layout.root),
            "PREFECT_HOME": str(self.project.layout.private_state / "prefect"),
            "PREFECT_API_URL": self.url,
            "PREFECT_API_AUTH_STRING": auth,
            "PREFECT_SERVER_API_AUTH_STRING": auth,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
            **vacuum(self.project.params.retention),
        }

    def start(self, child: Child) -> None:
        self.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.logs / f"{child.name}.log").open("ab") as log:
            child.process = processes.start_service(child.command, self.project.layout.root, child.env, log)
        child.started = time.monotonic()

    def add(self, name: str, command: Sequence[str], env: dict[str, str]) -> None:
        child = Child(name, list(command), env)
        self.children.append(child)
        self.start(child)

    def revive(self) -> None:
        """Start again what died. Raises: StepFailedError if a child ends at once, again and again."""
        for child in self.children:
            if child.process is None or child.process.poll() is None:
                continue
            child.failures = child.failures + 1 if time.monotonic() - child.started < PATIENCE else 1
            if child.failures > 5:
                raise StepFailedError(
                    f"{child.name} exited {child.failures} times soon after it was started; see .lmeraser/logs/{child.name}.log"
                )
            say(f"serve: {child.name} ended ({child.process.returncode}); starting it again")
            self.start(child)

    def stop(self) -> None:
        """End everything, the workers before the server."""
        running = [child.process for child in reversed(self.children) if child.process and child.process.poll() is None]
        processes.stop(running, PATIENCE)


def free_port(wanted: int) -> int:
    """The wanted port, or another that is free. Raises: ProjectError if the wanted one was named and is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            raise ProjectError(
                f"port {wanted} is already in use; stop the program that listens there, or choose another port with --port"
            ) from error
        port: int = probe.getsockname()[1]
        return port


def _wait_for_server(service: Service) -> None:
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{service.url}/health", timeout=2):  # noqa: S310  (loopback)
                return
        except urllib.error.HTTPError:
            return  # it answers, and wants a password
        except OSError:
            time.sleep(0.5)
        if service.children[0].process and service.children[0].process.poll() is not None:
            break
    raise StepFailedError("the Prefect server did not start; see .lmeraser/logs/server.log")


def _password(project: Project) -> str:
    """`user:password` of the server; made once, mode 0600."""
    path = project.layout.private_state / "server.auth"
    if not path.exists():
        write_atomically(path, f"lmeraser:{secrets.token_urlsafe(24)}".encode(), mode=0o600)
    if path.stat().st_mode & 0o077:
        raise ProjectError(
            f"{path.name} holds a password and other users can read it; run `chmod 600 .lmeraser/{path.name}` and retry"
        )
    return path.read_text(encoding="utf-8").strip()


def _setup(service: Service, env: dict[str, str]) -> None:
    """Pools, deployments, and the rule that notices dead runs."""
    for command in (["-m", "flows.service.server_setup"], ["-m", "prefect", "--no-prompt", "deploy", "--all"]):
        with (service.logs / "setup.log").open("ab") as log:
            code = processes.run_logged([sys.executable, *command], service.project.layout.root, env, log)
        if code:
            raise StepFailedError("the work pools and deployments could not be created; see .lmeraser/logs/setup.log")


def start_warm(service: Service, env: dict[str, str], count: int | None) -> None:
    """Start what stays warm for the project's commands; it says `ready` in its log when it is.

    Args: count: of processes that run stages; None: one, or one a GPU; 0: nor is there one with DVC.
    """
    layout, gpus = service.project.layout, devices.gpus(service.project.params)
    for index in range(max(gpus, 1) if count is None else count):
        command = [sys.executable, "-m", "stages.runtime.warm", str(layout.warm / f"{index}.sock")]
        service.add(f"warm-{index}", command, env | devices.place(index, gpus))
    if count != 0 and sys.platform == "linux":  # elsewhere a fork of what has imported much is not safe
        service.add("warm-dvc", [sys.executable, "-m", "flows.forks.server", str(layout.forks)], env)


def _start_all(service: Service, warm: int | None, workers: int) -> None:
    project = service.project
    env = service.environment(_password(project))
    auth = env["PREFECT_API_AUTH_STRING"]
    say("serve: starting the server")
    server = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(service.port)]
    service.add("server", server, env)
    _wait_for_server(service)
    write_atomically(project.layout.private_state / "server.json", readable_json({"url": service.url, "auth": auth}), mode=0o600)
    say("serve: pools and deployments")
    _setup(service, env)
    start_warm(service, env, warm)
    gpus = devices.gpus(project.params)
    worker = [sys.executable, "-m", "flows.service.worker"]
    service.add("worker", [*worker, "--pool", "lmeraser", "--name", "lmeraser", "--limit", "4"], env)
    service.add("courier", [sys.executable, "-m", "flows.door.courier"], env)  # tells hooks
    for index in range(workers):
        command = [*worker, "--pool", "gpu", "--name", f"gpu-{index}", "--limit", "1"]
        service.add(f"gpu-{index}", command, env | devices.place(index, gpus))


def _announce(service: Service) -> None:
    lines = [
        f"open          http://{HOST}:{service.port}   (password: .lmeraser/server.auth)",
        "send          lmeraser submit --subject S",
        "watch         lmeraser status",
        "logs          .lmeraser/logs",
        "end           Ctrl-C",
    ]
    print("\n".join(lines), flush=True)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def serve(port: int, warm: int | None, workers: int | None) -> None:
    """Run until interrupted."""
    project = Project.find()
    if "?" in str(project.layout.root):  # Prefect makes a URL of it, and would keep its database outside of the project
        raise ProjectError(
            "the project's path contains a question mark, which breaks the URL of Prefect's database; move the project and retry"
        )
    gpus = devices.gpus(project.params)
    project.layout.private_state.mkdir(exist_ok=True, mode=0o700)
    with (project.layout.private_state / "serve.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ProjectError(
                "the service is already running for this project; stop it with Ctrl-C where it was started, then retry"
            ) from error
        service = Service(project, free_port(port))
        for number in (signal.SIGINT, signal.SIGTERM):  # a shell's `&` starts it with SIGINT ignored
            signal.signal(number, _interrupt)
        try:
            _start_all(service, warm, max(gpus, 1) if workers is None else workers)
            _announce(service)
            while True:
                time.sleep(1)
                service.revive()
        except KeyboardInterrupt:
            say("serve: ending")
        finally:
            (project.layout.private_state / "server.json").unlink(missing_ok=True)
            service.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.service.supervisor", description="The whole service on this machine.")
    parser.add_argument("--port", type=int, default=4200, help="of the server, on loopback (0: any that is free)")
    kept = "processes that keep torch and the backbone loaded (default: one, or one a GPU; 0: nor one with DVC)"
    parser.add_argument("--warm", type=int, help=kept)
    parser.add_argument("--workers", type=int, help="workers of the pool gpu (default: one, or one a GPU)")
    options = parser.parse_args()
    try:
        serve(options.port, options.warm, options.workers)
    except LmeraserError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
