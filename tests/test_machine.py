"""The properties of the processors, read from file trees as Linux has them."""

import os
import subprocess

import pytest

from seqcells.system import machine


@pytest.fixture
def tree(tmp_path):
    """A function that writes files below a root and returns the root."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return tmp_path

    return write


@pytest.fixture
def processors(monkeypatch):
    """Pretend that this process may use ``count`` processors."""
    return lambda count: monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)


SECOND_VERSION = {"proc/self/cgroup": "0::/shop/door"}
FIRST_VERSION = {"proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/shop/door\n1:name=systemd:/"}


@pytest.mark.parametrize(
    ("files", "expected"),
    (
        ({}, None),
        (SECOND_VERSION, None),
        (SECOND_VERSION | {"sys/fs/cgroup/shop/door/cpu.max": "max 100000"}, None),
        (SECOND_VERSION | {"sys/fs/cgroup/shop/door/cpu.max": "150000 100000"}, 1.5),
        (SECOND_VERSION | {"sys/fs/cgroup/shop/cpu.max": "300000 100000"}, 3),
        (
            SECOND_VERSION
            | {"sys/fs/cgroup/shop/door/cpu.max": "400000 100000", "sys/fs/cgroup/cpu.max": "250000 100000"},
            2.5,
        ),
        (SECOND_VERSION | {"sys/fs/cgroup/unified/shop/door/cpu.max": "20000 100000"}, 0.2),
        # A container's root is its own group, whatever the path says.
        ({"proc/self/cgroup": "0::/../other", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        (SECOND_VERSION | {"sys/fs/cgroup/shop/door/cpu.max": "much"}, None),
        (FIRST_VERSION, None),
        (
            FIRST_VERSION
            | {
                "sys/fs/cgroup/cpu,cpuacct/shop/door/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu,cpuacct/shop/door/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        (
            FIRST_VERSION
            | {
                "sys/fs/cgroup/cpu,cpuacct/shop/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu,cpuacct/shop/cpu.cfs_period_us": "20000",
            },
            2.5,
        ),
        (
            FIRST_VERSION
            | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "70000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            0.7,
        ),
    ),
    ids=range(13),
)
def test_quotas(files, expected, tree, processors):
    processors(8)
    root = tree(files)
    assert machine.quota(root) == expected
    assert machine.cores(root) == (8 if expected is None else max(1, -int(-expected // 1)))


def test_affinity_counts_where_it_is_less_than_the_quota(tree, processors):
    processors(2)
    assert machine.cores(tree(SECOND_VERSION | {"sys/fs/cgroup/cpu.max": "350000 100000"})) == 2


def test_without_affinity_all_processors_count(tree, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert machine.cores(tree({})) == 6


def cache_files(*caches):
    where = "sys/devices/system/cpu/cpu0/cache"
    names = ("level", "type", "size")
    return {f"{where}/index{k}/{n}": v for k, each in enumerate(caches) for n, v in zip(names, each, strict=True)}


def test_caches(tree):
    files = cache_files(
        (1, "Data", "32K"),
        (1, "Instruction", "64K"),
        (2, "Unified", "1M"),
        (3, "Unified", "32768K"),
        (4, "Unified", "1G"),
    )
    assert machine.caches(tree(files)) == {"l1d": 32 << 10, "l2": 1 << 20, "l3": 32 << 20}


def test_caches_that_are_not_told(tree, monkeypatch):
    monkeypatch.setattr(machine.sys, "platform", "linux")
    assert machine.caches(tree(cache_files((2, "Unified", "large")))) == {"l1d": 0, "l2": 0, "l3": 0}


def test_caches_of_a_mac(tree, monkeypatch):
    sizes = {"hw.perflevel0.l1dcachesize": "131072", "hw.l2cachesize": "4194304"}

    def run(command, **_):
        return subprocess.CompletedProcess(command, 0, stdout=f"{sizes.get(command[-1], '')}\n")

    monkeypatch.setattr(machine.sys, "platform", "darwin")
    monkeypatch.setattr(machine.subprocess, "run", run)
    assert machine.caches(tree({})) == {"l1d": 128 << 10, "l2": 4 << 20, "l3": 0}


def test_classes(monkeypatch):
    assert machine.machine_class("avx2", 512 << 10) == "avx2-l2-512k"
    assert machine.machine_class("avx512", 0) == "avx512-l2-unknown"
    monkeypatch.setattr(machine, "caches", lambda: {"l1d": 0, "l2": 2 << 20, "l3": 0})
    assert machine.machine_class("amxbf16") == "amxbf16-l2-2048k"


@pytest.mark.parametrize(
    ("name", "multiprocessors", "expected"),
    (
        ("NVIDIA H200", 132, "cuda-h200-132sm"),
        ("NVIDIA H200 SXM 141GB HBM3e", 132, "cuda-h200-132sm"),
        ("NVIDIA H200 NVL", 132, "cuda-h200-nvl-132sm"),
        ("NVIDIA H100 80GB HBM3", 132, "cuda-h100-132sm"),
        ("NVIDIA H100 PCIe", 114, "cuda-h100-pcie-114sm"),
        ("NVIDIA A100-SXM4-40GB", 108, "cuda-a100-108sm"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 14, "cuda-a100-mig-1g.5gb-14sm"),
        ("NVIDIA GeForce RTX 4090", 128, "cuda-geforce-rtx-4090-128sm"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 76, "cuda-geforce-rtx-4090-laptop-76sm"),
        ("Tesla T4", 40, "cuda-t4-40sm"),
        ("", 10, "cuda-unknown-10sm"),
    ),
)
def test_classes_of_gpus(name, multiprocessors, expected):
    assert machine.gpu_class(name, multiprocessors) == expected
    assert machine.device_type(expected) == "cuda" and machine.device_type("avx2-l2-512k") == "cpu"


def test_kin_are_cpus_of_one_instruction_set():
    assert machine.are_kin("avx512-l2-unknown", "avx512-l2-2048k")
    assert not machine.are_kin("avx512-l2-2048k", "avx512bf16-l2-2048k")
    assert not machine.are_kin("cuda-h200-132sm", "cuda-h200-16sm")
    assert not machine.are_kin("cuda-h200-132sm", "cuda-h200-132sm")


def test_processors_have_names(tree):
    assert machine.processor(tree({"proc/cpuinfo": "processor\t: 0\nmodel name\t: Some Maker 9"})) == "Some Maker 9"


def test_this_machine():
    assert machine.cores() >= 1 and {*machine.caches()} == {"l1d", "l2", "l3"} and machine.processor()
