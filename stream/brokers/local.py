"""Apache Kafka itself, run here by a JDK: its jars come from Maven Central, once, into a cache folder.

Needs Java 17 or later and Maven. Starts in a few seconds on free loopback ports, with its data in a temporary
folder, and dies with its parent.
"""

import base64
import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import string
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from xml.etree import ElementTree

from stream.brokers.base import Broker
from stream.brokers.cluster import reach
from stream.child import dies_with_parent
from stream.errors import BrokerError

CACHE_VARIABLE = "DRIFTLINE_CACHE"
_JAVA_AT_LEAST = 17  # what Kafka 4's broker asks for
_FETCH_TIMEOUT_S = 900  # 44 MB on a slow line
_FORMAT_TIMEOUT_S = 60
_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 20
_ATTEMPTS = 3  # a free port may be taken between our look and Kafka's

_ELSE = "Or give a broker by --bootstrap-servers, or use Docker (docker compose up) or `driftline broker embedded`."


class LocalKafka(Broker):
    """One Kafka node. `stop` (or leaving `with`) ends it and removes its folder, unless it was given.

    folder: where data and log are kept; a temporary one if None. port: the clients' port; a free one if None.
    heap_mib: the JVM's largest heap. log_file: the broker's own log.
    Raises BrokerError when there is no JDK or Maven, the jars cannot be had, or Kafka does not start.
    """

    def __init__(self, folder: Path | None = None, port: int | None = None, heap_mib: int = 512) -> None:
        self._jars = fetch_jars()
        self._java = _java()
        self._heap_mib = heap_mib
        self._owned = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="driftline-kafka-")) if folder is None else folder.resolve()
        self.log_file = self.folder / "kafka.log"
        self._properties = self.folder / "kafka.properties"
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._begin(port)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int | None:
        """Process id of the running broker."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Starts the broker again, on the data and ports it had."""
        if self._process is not None:
            raise BrokerError("this Kafka is running already.")
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                dies_with_parent([*self._command("kafka.Kafka", self._heap_mib), str(self._properties)]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C in the terminal is for us; we stop it in order
            )
        self._wait()

    def stop(self) -> None:
        """Ends the broker in order and removes its folder, unless the folder was given."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._owned:
            shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """kill -9; the data stay, and `start` goes on with them."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _begin(self, port: int | None) -> None:
        if self._properties.exists():  # a folder used before: the same ports, the same data
            self.bootstrap_servers = _address(self._properties)
            if port is not None and not self.bootstrap_servers.endswith(f":{port}"):
                raise BrokerError(
                    f"{self.folder} belongs to a Kafka at {self.bootstrap_servers}. Leave the port out, or give "
                    "another folder."
                )
            self.start()
            return
        for attempt in range(_ATTEMPTS):
            self._format(port or free_port())
            try:
                self.start()
            except BrokerError:
                taken = "Address already in use" in self.log_file.read_text(errors="replace")
                if port is not None or not taken or attempt == _ATTEMPTS - 1:
                    raise
                shutil.rmtree(self.folder / "data")
            else:
                return

    def _format(self, port: int) -> None:
        """Writes the properties and lets Kafka format its folder for them."""
        template = string.Template((kafka_folder() / "kafka.properties").read_text(encoding="utf-8"))
        self.folder.mkdir(parents=True, exist_ok=True)
        text = template.substitute(port=port, controller_port=free_port(), data_dir=self.folder / "data")
        self._properties.write_text(text, encoding="utf-8")
        self.bootstrap_servers = f"127.0.0.1:{port}"
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        done = subprocess.run(
            [
                *self._command("kafka.tools.StorageTool", 64),
                "format",
                f"--cluster-id={cluster}",
                "-c",
                str(self._properties),
            ],
            capture_output=True,
            text=True,
            timeout=_FORMAT_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise BrokerError(f"Kafka could not format {self.folder}: {_last(done.stderr + done.stdout)}. {_ELSE}")

    def _command(self, main: str, heap_mib: int) -> list[str]:
        return [
            self._java,
            f"-Xmx{heap_mib}m",
            "-XX:TieredStopAtLevel=1" if "StorageTool" in main else "-XX:+UseG1GC",
            "-Djava.awt.headless=true",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
            "-cp",
            f"{self._jars}/*",
            main,
        ]

    def _wait(self) -> None:
        """Until it answers, or has ended, or took too long."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        host, _, port = self.bootstrap_servers.partition(":")
        assert self._process is not None
        while time.monotonic() < deadline:
            code = self._process.poll()
            if code is not None:
                self._process = None
                log = _last(self.log_file.read_text(errors="replace"))
                raise BrokerError(f"Kafka ended with code {code} while starting: {log}. Its log: {self.log_file}.")
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex((host, int(port))) == 0:
                    reach({"bootstrap.servers": self.bootstrap_servers}, deadline - time.monotonic(), patient=True)
                    return
            time.sleep(0.05)
        self.kill()
        raise BrokerError(f"Kafka did not answer within {_START_TIMEOUT_S} s. Its log: {self.log_file}.")


def why_no_local() -> str | None:
    """Why Kafka cannot be run here by a JDK; None when it can."""
    try:
        _java()
        kafka_folder()
        if not (_jar_folder() / "complete").exists():
            _maven()
    except BrokerError as error:
        return str(error).removesuffix(_ELSE).strip()
    return None


def fetch_jars() -> Path:
    """The folder with Kafka's jars, fetched by Maven if they are not there yet. Raises BrokerError."""
    folder = _jar_folder()
    complete = folder / "complete"
    if complete.exists():
        return folder
    maven = _maven()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # two that start at once: the second waits and finds them
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            command = [maven, "-q", "-B", "-f", str(kafka_folder() / "pom.xml"), "dependency:copy-dependencies"]
            try:
                done = subprocess.run(
                    [*command, f"-DoutputDirectory={folder}"],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=_FETCH_TIMEOUT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise BrokerError(f"Maven did not bring Kafka within {_FETCH_TIMEOUT_S} s. {_ELSE}") from None
            if done.returncode != 0:
                raise BrokerError(
                    f"Maven could not bring Kafka's jars: {_last(done.stdout + done.stderr)}. Check that it "
                    f"reaches Maven Central (or your mirror, in settings.xml). {_ELSE}"
                )
            complete.touch()
    return folder


def kafka_folder() -> Path:
    """The folder with pom.xml and kafka.properties: in an installed package, or in the source tree."""
    here = Path(__file__).resolve().parent
    for folder in (here / "kafka", here.parent.parent / "deploy" / "kafka"):
        if (folder / "pom.xml").exists():
            return folder
    raise BrokerError(f"deploy/kafka (pom.xml, kafka.properties) is not installed; use the source tree. {_ELSE}")


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _jar_folder() -> Path:
    """The cache folder of exactly what the pom asks for."""
    pom = (kafka_folder() / "pom.xml").read_bytes()
    version = ElementTree.fromstring(pom).findtext(".//{*}kafka.version")
    root = os.environ.get(CACHE_VARIABLE)
    if root is None:
        root = os.path.join(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "driftline")
    return Path(root).expanduser() / f"kafka-{version}-{hashlib.sha256(pom).hexdigest()[:8]}"


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=os.path.join(home, "bin") if home else None) or shutil.which("java")
    if java is None:
        raise BrokerError(f"no Java: install a JDK, {_JAVA_AT_LEAST} or later, or set JAVA_HOME. {_ELSE}")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < _JAVA_AT_LEAST:
        found = version[1] if version else told.strip()
        raise BrokerError(f"Kafka needs Java {_JAVA_AT_LEAST} or later, and {java} is {found}. Install it. {_ELSE}")
    return java


def _maven() -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError(f"no Maven (mvn) to fetch Kafka's jars with: install it. {_ELSE}")
    return maven


def _address(properties: Path) -> str:
    match = re.search(r"^advertised\.listeners=PLAINTEXT://(\S+)$", properties.read_text(), re.MULTILINE)
    if match is None:
        raise BrokerError(f"{properties} is not one that Driftline wrote. Give another folder.")
    return match[1]


def _last(text: str) -> str:
    """The lines of an output that matter: the errors, or its end."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line or "Exception" in line]
    return " / ".join((errors or lines)[-3:])[:600] or "it said nothing"
