"""The pod bootstrap's deciding parts: environment in, Ray's arguments out."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

from atoll.pod import (
    BadEnvironment,
    Places,
    PodConfig,
    ray_arguments,
    ray_environment,
    wait_for_port,
)
from tests.store_server import StoreServer

GOOD = {
    "ATOLL_STORE": "http://127.0.0.1:7070",
    "ATOLL_TOKEN": "t",
    "ATOLL_JOB": "job_1",
    "ATOLL_BUNDLE_SHA256": "0" * 64,
    "ATOLL_ROLE": "node",
    "ATOLL_HEAD_IP": "10.77.0.1",
    "ATOLL_WORLD": "3",
    "POD_IP": "10.77.0.2",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "a" * 48,
}
HEAD = GOOD | {"ATOLL_ROLE": "head", "POD_IP": "10.77.0.1"}


class EnvironmentTest(unittest.TestCase):
    def test_the_agreed_environment_is_read(self) -> None:
        config = PodConfig.from_env(GOOD)
        self.assertEqual((config.role, config.world, config.head_ip), ("node", 3, "10.77.0.1"))
        self.assertEqual(PodConfig.from_env(HEAD).role, "head")

    def test_each_missing_variable_is_named(self) -> None:
        for name in GOOD:
            with self.subTest(name):
                env = {k: v for k, v in GOOD.items() if k != name}
                with self.assertRaisesRegex(BadEnvironment, name):
                    PodConfig.from_env(env)

    def test_wrong_values_are_refused(self) -> None:
        for name, value in (
            ("ATOLL_ROLE", "king"),
            ("ATOLL_WORLD", "0"),
            ("ATOLL_WORLD", "-3"),
            ("ATOLL_BUNDLE_SHA256", "../../etc/passwd"),
            ("ATOLL_JOB", "a b"),
            ("POD_IP", "10.77.0.256"),
            ("ATOLL_HEAD_IP", "head"),
            ("RAY_AUTH_MODE", "disabled"),
            ("RAY_AUTH_TOKEN", "short"),
        ):
            with self.subTest(name=name, value=value), self.assertRaisesRegex(BadEnvironment, name):
                PodConfig.from_env(GOOD | {name: value})

    def test_a_head_is_where_the_others_look_for_it(self) -> None:
        with self.assertRaisesRegex(BadEnvironment, "ATOLL_HEAD_IP"):
            PodConfig.from_env(HEAD | {"POD_IP": "10.77.0.9"})

    def test_the_token_is_never_shown(self) -> None:
        secret = "s3cret" * 3
        with self.assertRaises(BadEnvironment) as refusal:
            PodConfig.from_env(GOOD | {"RAY_AUTH_TOKEN": secret, "ATOLL_TOKEN": ""})
        self.assertNotIn(secret, str(refusal.exception))


class RayTest(unittest.TestCase):
    def test_the_head_is_found_where_the_control_plane_looks(self) -> None:
        arguments = ray_arguments(PodConfig.from_env(HEAD), Places())
        for expected in (
            "--head",
            "--port=6379",
            "--node-ip-address=10.77.0.1",
            "--dashboard-host=10.77.0.1",
            "--dashboard-port=8265",
            "--include-dashboard=true",
            "--num-cpus=1",
        ):
            self.assertIn(expected, arguments)

    def test_a_node_joins_the_head(self) -> None:
        arguments = ray_arguments(PodConfig.from_env(GOOD), Places())
        self.assertIn("--address=10.77.0.1:6379", arguments)
        self.assertIn("--node-ip-address=10.77.0.2", arguments)
        self.assertNotIn("--head", arguments)

    def test_a_silent_node_is_dead_within_five_seconds(self) -> None:
        env = ray_environment({})
        period, timeout, failures = (
            int(env[f"RAY_health_check_{name}"])
            for name in ("period_ms", "timeout_ms", "failure_threshold")
        )
        self.assertLessEqual((period + timeout) * failures, 5000)

    def test_the_entry_command_finds_the_packs_python_first(self) -> None:
        path = ray_environment({"PATH": "/usr/bin"})["PATH"].split(os.pathsep)
        self.assertEqual(path, [str(Path(sys.executable).parent), "/usr/bin"])


class StartTest(unittest.TestCase):
    def test_a_node_waits_for_a_head_that_comes_later(self) -> None:
        with socket.socket() as head:
            head.bind(("127.0.0.1", 0))
            address = head.getsockname()
            waiting = threading.Thread(target=wait_for_port, args=(address, time.monotonic() + 20))
            waiting.start()
            head.listen()
            waiting.join(20)
            self.assertFalse(waiting.is_alive())

    def test_a_node_gives_up_at_the_deadline_and_says_why(self) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            with self.assertRaisesRegex(TimeoutError, "is the head pod up"):
                wait_for_port(nobody.getsockname(), time.monotonic())

    def run_pod(self, env: dict[str, str], folder: str) -> subprocess.CompletedProcess[str]:
        sdk = Path(__file__).resolve().parent.parent
        return subprocess.run(
            [sys.executable, "-m", "atoll.pod", f"--job-dir={folder}"],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(sdk)} | env,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def test_a_pod_with_a_wrong_environment_or_bundle_ends_with_one_clear_line(self) -> None:
        with tempfile.TemporaryDirectory() as folder, StoreServer() as server:
            done = self.run_pod(HEAD | {"RAY_AUTH_MODE": ""}, folder)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stdout, r"cannot start: .*RAY_AUTH_MODE")
            self.assertNotIn("Traceback", done.stderr)
            here = {"ATOLL_STORE": server.url, "ATOLL_TOKEN": server.token}
            done = self.run_pod(HEAD | here, folder)
            self.assertRegex(done.stdout, r"cannot start: .*404")
            self.assertEqual(done.returncode, 1)
            hostile = {"ATOLL_BUNDLE_SHA256": server.put(b"no tar at all")}
            done = self.run_pod(HEAD | here | hostile, folder)
            self.assertRegex(done.stdout, r"cannot start: not a readable tar archive")
            self.assertEqual(done.returncode, 1)


if __name__ == "__main__":
    unittest.main()
