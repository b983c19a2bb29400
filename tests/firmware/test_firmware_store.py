"""Where images are looked for, and what a set of them is."""

from __future__ import annotations

import hashlib
import lzma
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from amdrv.errors import InvalidArgument, MalformedInput, NotFound, Unsupported
from amdrv.firmware import Need, find, needs_for, parse, resolve, search_places
from amdrv.firmware.authenticity import authenticate
from amdrv.firmware.report import image_rows, place_rows
from amdrv.firmware.store import MAX_IMAGE_SIZE_BYTES
from amdrv.firmware.synthetic import images_for

NAVI31 = {"MP0": (13, 0, 0), "MP1": (13, 0, 0), "SDMA0": (6, 0, 0), "GC": (11, 0, 0)}
CARRIED = images_for("gfx1100")
UPDATED = images_for("gfx1100", seed="update")
MEC = "gc_11_0_0_mec.bin"
NEED = Need("mec", (MEC,))


def chosen(folder: Path) -> dict[str, str]:
    return {"AMDRV_FIRMWARE": str(folder)}


def test_chosen_folder_wins_over_carried_images_and_these_over_the_distribution(tmp_path: Path) -> None:
    mine, distribution = tmp_path / "mine", tmp_path / "distribution"
    for folder in (mine, distribution):
        folder.mkdir()
        (folder / MEC).write_bytes(folder.name.encode())
    both = search_places({MEC: b"carried"}, environment=chosen(mine), folders=(distribution,))
    order = [find(NEED, both[start:]) for start in (0, 2, 3)]
    assert [found.data for found in order if found] == [b"mine", b"carried", b"distribution"]
    assert [found.origin for found in order if found] == [
        str(mine / MEC),
        f"carried by the card: {MEC}",
        str(distribution / MEC),
    ]


def test_amdgpu_folder_inside_the_chosen_folder_is_searched(tmp_path: Path) -> None:
    (tmp_path / "amdgpu").mkdir()
    (tmp_path / "amdgpu" / MEC).write_bytes(b"image")
    found = find(NEED, search_places(environment=chosen(tmp_path), folders=()))
    assert found is not None
    assert found.data == b"image"


def test_file_that_the_chosen_folder_lacks_comes_from_the_next_place(tmp_path: Path) -> None:
    (tmp_path / MEC).write_bytes(UPDATED[MEC])
    firmware = resolve(NAVI31, places=search_places(CARRIED, environment=chosen(tmp_path), folders=()))
    assert firmware.origins["mec"] == str(tmp_path / MEC)
    assert firmware.origins["rlc"] == "carried by the card: gc_11_0_0_rlc.bin"


def test_environment_is_read_when_searching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / MEC).write_bytes(b"image")
    monkeypatch.delenv("AMDRV_FIRMWARE", raising=False)
    assert find(NEED, search_places(folders=())) is None
    monkeypatch.setenv("AMDRV_FIRMWARE", str(tmp_path))
    assert find(NEED, search_places(folders=())) is not None


def test_chosen_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"AMDRV_FIRMWARE=.*nowhere is not a folder"):
        search_places(environment=chosen(tmp_path / "nowhere"))


@pytest.mark.parametrize(("suffix", "compress"), [(".xz", lzma.compress), (".zst", zstandard.compress)])
def test_compressed_file_reads_like_a_plain_one(tmp_path: Path, suffix: str, compress: object) -> None:
    assert callable(compress)
    (tmp_path / f"{MEC}{suffix}").write_bytes(compress(CARRIED[MEC]))
    found = find(NEED, search_places(environment={}, folders=(tmp_path,)))
    assert found is not None
    assert (found.name, found.data) == (MEC, CARRIED[MEC])
    assert found.origin.endswith(suffix)


@pytest.mark.parametrize(("suffix", "compress"), [(".xz", lzma.compress), (".zst", zstandard.compress)])
def test_damaged_archive_is_malformed_at_the_latest_when_parsed(tmp_path: Path, suffix: str, compress: object) -> None:
    assert callable(compress)
    whole = compress(CARRIED[MEC])
    path = tmp_path / f"{MEC}{suffix}"
    for damaged in (whole[: len(whole) // 2], b"\0" + whole[1:], whole[:6], b""):
        path.write_bytes(damaged)
        with pytest.raises(MalformedInput, match=MEC):
            resolve(NAVI31, places=search_places(CARRIED, environment=chosen(tmp_path), folders=()))


@pytest.mark.parametrize(("suffix", "compress"), [(".xz", lzma.compress), (".zst", zstandard.compress)])
def test_archive_larger_than_any_firmware_is_malformed(tmp_path: Path, suffix: str, compress: object) -> None:
    assert callable(compress)
    (tmp_path / f"{MEC}{suffix}").write_bytes(compress(bytes(MAX_IMAGE_SIZE_BYTES + 1)))
    with pytest.raises(MalformedInput, match="more than"):
        find(NEED, search_places(environment={}, folders=(tmp_path,)))


def test_file_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / MEC).mkdir()
    with pytest.raises(NotFound, match=f"{MEC} cannot be read"):
        find(NEED, search_places({MEC: b"carried"}, environment=chosen(tmp_path), folders=()))


def test_missing_image_is_named_with_the_places_and_the_package(tmp_path: Path) -> None:
    carried = {name: data for name, data in CARRIED.items() if name != MEC}
    with pytest.raises(NotFound) as caught:
        resolve(NAVI31, places=search_places(carried, environment={}, folders=(tmp_path / "distribution",)))
    for part in (MEC, "carried by the card", str(tmp_path / "distribution"), "firmware-amd-graphics", "AMDRV_FIRMWARE"):
        assert part in str(caught.value)


def test_missing_trusted_applications_cost_only_their_own_pieces() -> None:
    carried = {name: data for name, data in CARRIED.items() if name != "psp_13_0_0_ta.bin"}
    firmware = resolve(NAVI31, places=search_places(carried, environment={}, folders=()))
    whole = resolve(NAVI31, places=search_places(CARRIED, environment={}, folders=()))
    assert [load.name for load in whole.loads if load not in firmware.loads] == ["ASD"]


def test_scheduler_image_of_older_packages_is_taken_where_the_newer_is_absent() -> None:
    older = {("gc_11_0_0_mes.bin" if name == "gc_11_0_0_mes_2.bin" else name): data for name, data in CARRIED.items()}
    firmware = resolve(NAVI31, places=search_places(older, environment={}, folders=()))
    assert firmware.images["mes"].name == "gc_11_0_0_mes.bin"


def test_image_without_a_piece_of_the_plan_is_malformed() -> None:
    sos = CARRIED["psp_13_0_0_sos.bin"]
    other = parse("psp_13_0_0_ta.bin", CARRIED["psp_13_0_0_ta.bin"])
    # The TA container has the same header version: under the sOS's name its types mean other pieces.
    swapped = {**CARRIED, "psp_13_0_0_sos.bin": CARRIED["psp_13_0_0_ta.bin"]}
    assert other.header_version == parse("psp_13_0_0_sos.bin", sos).header_version
    with pytest.raises(MalformedInput, match=r"psp_13_0_0_sos\.bin has no piece SYS_DRV"):
        resolve(NAVI31, places=search_places(swapped, environment={}, folders=()))


def digest_of(images: dict[str, bytes], **scope: str) -> bytes:
    return resolve(NAVI31, places=search_places(images, environment={}, folders=()), **scope).digest


def test_digest_covers_bytes_of_a_header_that_never_reach_the_card() -> None:
    name = "smu_13_0_0.bin"
    changed = bytearray(CARRIED[name])
    changed[44] ^= 1
    assert digest_of({**CARRIED, name: bytes(changed)}) != digest_of(dict(CARRIED))


def test_digest_covers_files_that_compute_does_not_load() -> None:
    name = "psp_13_0_0_ta.bin"
    assert name in CARRIED
    shorter = {**CARRIED, name: CARRIED[name][:-1]}
    assert digest_of(shorter, scope="compute") != digest_of(dict(CARRIED), scope="compute")


@pytest.mark.parametrize("name", sorted(CARRIED))
def test_digest_changes_with_any_one_image(name: str) -> None:
    def digest(images: dict[str, bytes]) -> bytes:
        return resolve(NAVI31, places=search_places(images, environment={}, folders=())).digest

    assert digest(dict(CARRIED)) != digest({**CARRIED, name: UPDATED[name]})


def test_digest_does_not_depend_on_where_and_how_files_are_kept(tmp_path: Path) -> None:
    for name, data in CARRIED.items():
        (tmp_path / f"{name}.zst").write_bytes(zstandard.compress(data))
    kept = resolve(NAVI31, places=search_places(environment={}, folders=(tmp_path,)))
    assert kept.digest == resolve(NAVI31, places=search_places(CARRIED, environment={}, folders=())).digest


def test_synthetic_images_are_the_same_each_time_and_all_signed() -> None:
    assert images_for.__wrapped__("gfx1100") == CARRIED
    images = resolve(NAVI31, places=search_places(CARRIED, environment={}, folders=())).images
    assert {row.verdict for row in authenticate(images)} == {"signed"}


def test_synthetic_images_are_small() -> None:
    assert sum(map(len, CARRIED.values())) < 128 << 10


def test_there_are_no_synthetic_images_for_an_unknown_card() -> None:
    with pytest.raises(NotFound, match="gfx1234"):
        images_for("gfx1234")


@pytest.mark.parametrize("block", ["MP0", "MP1", "SDMA0", "GC"])
def test_unknown_ip_version_is_unsupported_and_named(block: str) -> None:
    with pytest.raises(Unsupported, match=f"{block} version 1.2.3"):
        needs_for({**NAVI31, block: (1, 2, 3)})
    with pytest.raises(Unsupported, match=f"{block} is absent"):
        needs_for({name: version for name, version in NAVI31.items() if name != block})


def test_special_boards_get_their_own_images() -> None:
    # amdgpu_ucode.c: kicker_device_list has 744B revision 0; gfx_v11_0_init_microcode: revision CE of GC 11.0.0
    kicker = {need.role: need.names[0] for need in needs_for(NAVI31, device_id=0x744B, revision=0x00)}
    assert kicker["sos"] == "psp_13_0_0_sos_kicker.bin"
    assert kicker["smu"] == "smu_13_0_0_kicker.bin"
    assert kicker["rlc"] == "gc_11_0_0_rlc_kicker.bin"
    assert kicker["mec"] == MEC
    other = {need.role: need.names[0] for need in needs_for(NAVI31, device_id=0x744C, revision=0xCE)}
    assert (other["rlc"], other["sos"]) == ("gc_11_0_0_rlc_1.bin", "psp_13_0_0_sos.bin")
    usual = {need.role: need.names[0] for need in needs_for(NAVI31, device_id=0x744C, revision=0xC8)}
    assert (usual["rlc"], usual["sos"]) == ("gc_11_0_0_rlc.bin", "psp_13_0_0_sos.bin")


def test_rows_tell_good_from_damaged_from_absent_images(tmp_path: Path) -> None:
    carried = {name: data for name, data in CARRIED.items() if name != "sdma_6_0_0.bin"}
    (tmp_path / MEC).write_bytes(CARRIED[MEC][:100])
    rows = {
        row.role: row
        for row in image_rows(needs_for(NAVI31), search_places(carried, environment=chosen(tmp_path), folders=()))
    }
    assert rows["rlc"].problem == ""
    assert (rows["rlc"].header_version, rows["rlc"].ucode_version) == ("2.3", 0x80)
    assert rows["rlc"].sha256 == hashlib.sha256(CARRIED["gc_11_0_0_rlc.bin"]).hexdigest()
    assert "size_bytes" in rows["mec"].problem
    assert rows["mec"].origin == str(tmp_path / MEC)
    assert rows["sdma"].problem == "not found"


def test_rows_of_places_are_in_search_order_with_counts(tmp_path: Path) -> None:
    (tmp_path / MEC).write_bytes(CARRIED[MEC])
    places = search_places(CARRIED, environment=chosen(tmp_path), folders=(tmp_path / "absent",))
    rows = place_rows(needs_for(NAVI31), places)
    assert [(row.present, row.needed_images) for row in rows] == [(True, 1), (False, 0), (True, 11), (False, 0)]


def test_importing_the_room_loads_no_decompressor_and_no_numpy() -> None:
    code = (
        "import sys; before = set(sys.modules); import amdrv.firmware;"
        "print(*sorted({'lzma', 'zstandard', 'numpy', 'llvmlite'} & (set(sys.modules) - before)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == ""
