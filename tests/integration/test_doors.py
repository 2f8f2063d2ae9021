"""What the platform listens on: loopback, and nothing else."""

from __future__ import annotations

import ipaddress

import psutil
import pytest

from embedded.processes import marked_processes
from tests.integration.live import LivePlatform


# Slow for its platform, which stays up, and busy, as long as the tests run.
@pytest.mark.slow
def test_every_socket_of_the_platform_listens_on_loopback(live: LivePlatform):
    doors = {
        (connection.laddr.ip, connection.laddr.port): process.name()
        for process in marked_processes(live.run_dir)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert {door: name for door, name in doors.items() if not ipaddress.ip_address(door[0]).is_loopback} == {}
    ports = live.state["ports"]
    assert {ports["airflow_port"], ports["aws_port"], ports["sagemaker_port"]} <= {port for _, port in doors}
