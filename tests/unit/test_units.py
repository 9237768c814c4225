"""Units as they are rendered: hardened enough, and understood by every systemd we promise."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.core.host_layout import HostLayout
from edgekit.core.planning.values import GPU
from edgekit.core.preflight import MIN_SYSTEMD
from edgekit.core.site_config import ServerConfig, SiteConfig
from edgekit.core.site_units import DROP_IN, site_drop_ins
from edgekit.operations.tls import seal_tls_key
from edgekit.system.resources import read_unit_templates
from edgekit.system.services import SystemdServices
from tests.unit.test_planner import PACK, HostBuilder, plan

MAX_SCORE_TENTHS = {"edgekit-gateway.service": 5, "edgekit-auditd.service": 5,
                    "edgekit-forward.service": 5,
                    "edgekit-engine@demo.service": 5, "edgekit-engine-gpu@demo.service": 8,
                    "edgekit-engine-image@demo.service": 50, "edgekit-scrub.service": 50,
                    "edgekit-boot-check.service": 50}
SINCE = {
    "LogRateLimitIntervalSec": 240, "CoredumpFilter": 246,
    "ProtectHostname": 242, "RestrictSUIDSGID": 242, "OOMPolicy": 243, "TimeoutAbortSec": 243,
    "ProtectKernelLogs": 244, "ProtectClock": 245, "LoadCredential": 247, "ProtectProc": 247,
    "ProcSubset": 247, "ExecPaths": 248, "NoExecPaths": 248, "PrivateIPC": 248,
}
"""The version that brought a directive (systemd's NEWS); those in OLD came before 240."""
OLD = frozenset(re.findall(r"\w+", """
After AmbientCapabilities Backlog CPUWeight CapabilityBoundingSet Description DynamicUser
Environment ExecStart Group IOSchedulingClass IPAddressAllow IPAddressDeny InaccessiblePaths
KeyringMode LimitCORE LimitMEMLOCK LimitNOFILE ListenStream LockPersonality MemoryMax
MemoryDenyWriteExecute Nice NoDelay NoNewPrivileges NotifyAccess OOMScoreAdjust OnBootSec
OnCalendar PartOf Persistent PrivateDevices PrivateMounts PrivateNetwork PrivateTmp PrivateUsers
ProtectControlGroups ProtectHome ProtectKernelModules ProtectKernelTunables ProtectSystem
RandomizedDelaySec ReadWritePaths RemoveIPC Requires Restart RestartSec RestrictAddressFamilies
RestrictNamespaces RestrictRealtime RuntimeDirectory RuntimeDirectoryMode StartLimitBurst
StartLimitIntervalSec StateDirectory StateDirectoryMode SystemCallArchitectures
SystemCallErrorNumber SystemCallFilter TasksMax TimeoutStartSec TimeoutStopSec Type UMask
WantedBy Wants WatchdogSec BindPaths BindReadOnlyPaths CacheDirectory CacheDirectoryMode
DeviceAllow DevicePolicy MaxConnections FreeBind BindIPv6Only ExecStartPre SupplementaryGroups
ReadOnlyPaths Before Conflicts KillMode ExecStopPost
"""))


IMAGE = replace(PACK, provider="image", image="engine")
CUDA = replace(PACK, provider="source", accelerator="cuda", cuda=(12, 8))


def rendered() -> dict[str, str]:
    """Every unit; those of engines that are started otherwise under the name of their template."""
    units = dict(plan(Path("/"), HostBuilder()).units)
    for kind, other in (("gpu", plan(Path("/"), HostBuilder(), pack=CUDA, placement=GPU)),
                        ("image", plan(Path("/"), HostBuilder(), pack=IMAGE))):
        units[f"edgekit-engine-{kind}@m.service"] = dict(other.units)["edgekit-engine@m.service"]
    return units


@pytest.mark.parametrize("name", sorted(read_unit_templates()))
def test_the_oldest_systemd_knows_every_directive(name: str) -> None:
    used = set(re.findall(r"^([A-Za-z0-9]+)=", read_unit_templates()[name], re.MULTILINE))
    assert used
    unknown = used - OLD - set(SINCE)
    assert not unknown, "say in SINCE which version brought it"
    assert {d: SINCE[d] for d in used & set(SINCE) if SINCE[d] > MIN_SYSTEMD} == {}


def kind_of(unit: str) -> str:
    """A unit's name without its instance: `edgekit-engine@demo.service` is `edgekit-engine@`."""
    return re.sub(r"@.*", "@", unit)


def exposure(unit: str, text: str, folder: Path, threshold: int) -> int:
    """The exit status of systemd-analyze: 0 when the score is at most `threshold` tenths."""
    path = folder / unit
    path.write_text(text, "utf-8")
    argv = ["systemd-analyze", "security", "--offline=yes", "--no-pager",
            f"--threshold={threshold}", str(path)]
    return subprocess.run(argv, capture_output=True, check=False).returncode


@pytest.mark.parametrize("unit", sorted(MAX_SCORE_TENTHS))
def test_exposure_stays_below_its_bar(unit: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("cannot run here: systemd-analyze is not installed")
    units = rendered()
    name = next(name for name in units if kind_of(name) == kind_of(unit))
    assert exposure(unit, units[name], tmp_path, MAX_SCORE_TENTHS[unit]) == 0
    loose = re.sub(r"^(Protect|Private|Restrict|SystemCall|NoNew|Capability).*\n", "", units[name],
                   flags=re.MULTILINE)
    assert exposure(unit, loose, tmp_path, MAX_SCORE_TENTHS[unit]) != 0


def test_memory_is_limited_by_the_plan_and_the_engine_goes_first() -> None:
    units = rendered()
    (engine,) = (text for name, text in units.items() if name.startswith("edgekit-engine@"))
    limit = int(re.search(r"^MemoryMax=(\d+)$", engine, re.MULTILINE)[1])  # type: ignore[index]
    need = plan(Path("/"), HostBuilder()).selections[0].chosen.need
    assert need is not None
    assert need.total < limit < 2 * need.total + (64 << 20)
    assert "OOMPolicy=stop" in engine

    def adjust(text: str) -> int:
        return int(re.search(r"^OOMScoreAdjust=(-?\d+)$", text, re.MULTILINE)[1])  # type: ignore[index]

    order = [engine, units["edgekit-gateway.service"], units["edgekit-auditd.service"]]
    assert sorted(map(adjust, order), reverse=True) == [adjust(text) for text in order]


def test_an_engine_on_an_accelerator_opens_its_devices_and_no_others() -> None:
    units = rendered()
    gpu = units["edgekit-engine-gpu@m.service"]
    assert "DevicePolicy=closed" in gpu
    assert "DeviceAllow=char-nvidiactl rw" in gpu
    assert "PrivateDevices=yes" not in gpu
    assert "PrivateDevices=yes" in units["edgekit-engine@m.service"]
    shared = set(units["edgekit-engine@m.service"].splitlines()) - set(gpu.splitlines())
    assert {line.partition("=")[0] for line in shared} == {
        "Description", "PrivateDevices", "LimitMEMLOCK", "ProcSubset"}


def test_an_engine_from_an_image_is_podmans_and_no_more_than_it_needs() -> None:
    image = rendered()["edgekit-engine-image@m.service"]
    assert {"PrivateNetwork=yes", "NoNewPrivileges=yes", "ProtectSystem=strict"} <= set(
        image.splitlines())
    settings = plan(Path("/"), HostBuilder(), pack=IMAGE).appliance.engines[0]
    assert settings.owner > 0
    assert {"--pull=never", "--network=none", "--read-only", "--cap-drop=all"} <= set(settings.argv)
    assert [word for word in settings.argv if word.startswith("r.test/engine@sha256:")]


def test_the_check_after_boot_outlives_the_appliance() -> None:
    assert "PartOf" not in rendered()["edgekit-boot-check.service"]
    assert "edgekit-boot-check" not in rendered()["edgekit.target"]


@pytest.mark.parametrize(
    ("own_key", "site_key", "line"),
    [
        ("server.key", "", "LoadCredential=tls-key:/tls/server.key"),
        ("server.key.cred", "", "LoadCredentialEncrypted=tls-key:/tls/server.key.cred"),
        ("server.key.cred", "/etc/x.key", "LoadCredential=tls-key:/etc/x.key"),
        ("server.key", "/etc/x.cred", "LoadCredentialEncrypted=tls-key:/etc/x.cred"),
    ],
)
def test_encrypted_secrets_are_loaded_as_such(own_key: str, site_key: str, line: str) -> None:
    certificate = "/etc/x.pem" if site_key else ""
    server = ServerConfig(lan="10.0.0.1:443", tls_certificate=certificate, tls_key=site_key)
    texts = site_drop_ins(SiteConfig(server=server), Path("/tls"), own_key)
    assert line in texts["edgekit-gateway.service"].splitlines()


def test_a_secret_is_sealed_for_this_machine_or_left_as_it_is(tmp_path: Path) -> None:
    layout = HostLayout(tmp_path)
    layout.tls.mkdir(parents=True)
    (layout.tls / "server.key").write_bytes(b"a private key")
    (layout.tls / "server.key").chmod(0o600)
    name = seal_tls_key(layout)
    assert [path.name for path in layout.tls.iterdir()] == [name]
    assert (layout.tls / name).stat().st_mode & 0o777 == 0o600
    assert (b"a private key" in (layout.tls / name).read_bytes()) == (name == "server.key")
    assert seal_tls_key(layout) == name


def test_site_drop_ins_come_and_go_and_leave_the_operators_alone(tmp_path: Path) -> None:
    layout = HostLayout(tmp_path)
    folder = layout.units / "edgekit-gateway.socket.d"
    folder.mkdir(parents=True)
    (folder / "mine.conf").write_text("[Socket]\nBacklog=5\n", "utf-8")
    services = SystemdServices(layout)
    site = SiteConfig(server=ServerConfig(listen="127.0.0.1:8080"))
    services.write_drop_ins(site_drop_ins(site, layout.tls))
    assert "ListenStream=\nListenStream=127.0.0.1:8080\n" in (folder / DROP_IN).read_text("utf-8")
    services.write_drop_ins(site_drop_ins(SiteConfig(), layout.tls))
    assert [path.name for path in folder.iterdir()] == ["mine.conf"]
    (folder / "mine.conf").unlink()
    services.write_drop_ins(site_drop_ins(site, layout.tls))
    services.write_drop_ins({})
    assert not folder.exists()
