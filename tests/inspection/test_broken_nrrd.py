"""Odd and broken NRRD and MetaImage files, written byte by byte."""

from __future__ import annotations

import gzip
import zlib
from types import SimpleNamespace

import numpy as np


def item(name, path, truth=None, affine=None, words=None, either=False, atol=0):
    """``truth``: the array due, or ``None`` where the file must be refused; ``either``: equal or refused."""
    return SimpleNamespace(name=name, path=path, truth=truth, affine=affine, words=words, either=either, atol=atol)


def cases(folder):
    folder.mkdir(parents=True, exist_ok=True)
    v = np.random.default_rng(0).integers(0, 200, (6, 5, 4)).astype(np.int16)
    raw = v.tobytes("F")
    be = v.astype(">i2").tobytes("F")
    A = np.diag([-0.5, -0.7, 2.0, 1])
    A[:3, 3] = [-1, -2, 3]

    def put(name, content, truth=None, aff=A, words=None, either=False):
        p = folder / name
        p.write_bytes(content)
        return item("itk/" + name, p, truth, aff if truth is not None else None, words, either)

    def nrrd(
        data=raw,
        enc="raw",
        endian="little",
        sizes="6 5 4",
        typ="short",
        space="left-posterior-superior",
        dirs="(0.5,0,0) (0,0.7,0) (0,0,2)",
        origin="(1,2,3)",
        more="",
        dim=3,
        magic="NRRD0004",
    ):
        h = (
            f"{magic}\ntype: {typ}\ndimension: {dim}\n"
            + (f"space: {space}\n" if space else "")
            + f"sizes: {sizes}\n"
            + (f"space directions: {dirs}\n" if dirs else "")
            + "kinds: "
            + " ".join(["domain"] * dim)
            + f"\nendian: {endian}\nencoding: {enc}\n"
            + (f"space origin: {origin}\n" if origin else "")
            + more
            + "\n"
        )
        return h.encode() + data

    yield put("raw.nrrd", nrrd(), v)
    yield put("gz.nrrd", nrrd(gzip.compress(raw), "gzip"), v)
    yield put("big.nrrd", nrrd(be, endian="big"), v)
    yield put(
        "ras.nrrd", nrrd(space="right-anterior-superior", dirs="(-0.5,0,0) (0,-0.7,0) (0,0,2)", origin="(-1,-2,3)"), v
    )
    yield put("lps_short.nrrd", nrrd(space="LPS"), v)
    yield put("ascii.nrrd", nrrd(" ".join(map(str, v.ravel("F"))).encode(), "ascii"), v)
    yield put(
        "nospace.nrrd", nrrd(space=None, dirs=None, origin=None, more="spacings: 0.5 0.7 2\n"), v, either=True, aff=None
    )
    yield put("cut.nrrd", nrrd(raw[:-10]))
    yield put("cutgz.nrrd", nrrd(gzip.compress(raw)[:-5], "gzip"))
    b = bytearray(gzip.compress(raw))
    b[-6] ^= 1
    yield put("crc.nrrd", nrrd(bytes(b), "gzip"))
    yield put("more.nrrd", nrrd(raw + bytes(24)), v, either=True)
    yield put("moregz.nrrd", nrrd(gzip.compress(raw + bytes(24)), "gzip"), v, either=True)
    yield put("lessgz.nrrd", nrrd(gzip.compress(raw[:-24]), "gzip"))
    yield put("huge.nrrd", nrrd(sizes="60000 60000 6000"))
    yield put("zero.nrrd", nrrd(sizes="0 5 4"))
    yield put("neg.nrrd", nrrd(sizes="-6 5 4"))
    yield put("nan_dir.nrrd", nrrd(dirs="(nan,0,0) (0,0.7,0) (0,0,2)"))
    yield put("sing.nrrd", nrrd(dirs="(0.5,0,0) (0.5,0,0) (0,0,2)"))
    yield put("zero_dir.nrrd", nrrd(dirs="(0,0,0) (0,0.7,0) (0,0,2)"))
    yield put("badtype.nrrd", nrrd(typ="nonsense"))
    yield put("badmagic.nrrd", nrrd(magic="NRRD9999"))
    yield put("detached_missing.nrrd", nrrd(b"", more="data file: nothing.raw\n"))
    yield put("head_only.nrrd", b"NRRD0004\n")
    yield put("4d.nrrd", nrrd(v.tobytes() * 2, dim=4, sizes="6 5 4 2", dirs="(0.5,0,0) (0,0.7,0) (0,0,2) none"))
    yield put("wrong_endian_missing.nrrd", nrrd().replace(b"endian: little\n", b""))
    yield put("shear.nrrd", nrrd(dirs="(0.5,0,0) (0.3,0.7,0) (0,0,2)"), v, aff=None, either=True)
    yield put("lineskip.nrrd", nrrd(b"xx\n" + raw, more="line skip: 1\n"), v, either=True)
    yield put("abs_path.nrrd", nrrd(b"", more="data file: /etc/passwd\n"))
    yield put("tiny_spacing.nrrd", nrrd(dirs="(0.0005,0,0) (0,0.0007,0) (0,0,0.002)"), words="implausible")
    f = v.astype("<f4")
    f[1, 1, 1] = np.nan
    yield put("nan.nrrd", nrrd(f.tobytes("F"), typ="float"), words="NaN")

    def mha(
        data=raw,
        comp="False",
        more="",
        dims="6 5 4",
        typ="MET_SHORT",
        order="False",
        tm="1 0 0 0 1 0 0 0 1",
        sp="0.5 0.7 2",
        local="LOCAL",
        nd=3,
        size="",
    ):
        return (
            f"ObjectType = Image\nNDims = {nd}\nBinaryData = True\nBinaryDataByteOrderMSB = {order}\n"
            f"CompressedData = {comp}\n{size}TransformMatrix = {tm}\nOffset = 1 2 3\nElementSpacing = {sp}\n"
            f"DimSize = {dims}\n{more}ElementType = {typ}\nElementDataFile = {local}\n"
        ).encode() + data

    z = zlib.compress(raw)
    yield put("raw.mha", mha(), v)
    yield put("big.mha", mha(be, order="True"), v)
    yield put("z.mha", mha(z, "True", size=f"CompressedDataSize = {len(z)}\n"), v)
    yield put("cut.mha", mha(raw[:-10]))
    yield put("cut_z.mha", mha(z[:-9], "True", size=f"CompressedDataSize = {len(z)}\n"))
    zb = bytearray(z)
    zb[-2] ^= 1
    yield put("adler.mha", mha(bytes(zb), "True", size=f"CompressedDataSize = {len(z)}\n"))
    zb = bytearray(z)
    zb[len(z) // 2] ^= 4
    yield put("flip_z.mha", mha(bytes(zb), "True", size=f"CompressedDataSize = {len(z)}\n"))
    zs = zlib.compress(raw[:-40])
    yield put("short_z.mha", mha(zs, "True", size=f"CompressedDataSize = {len(zs)}\n"))
    yield put("more.mha", mha(raw + bytes(48)), v, either=True)
    yield put("huge.mha", mha(dims="60000 60000 60000"))
    yield put("zero.mha", mha(dims="0 5 4"))
    yield put("neg.mha", mha(dims="-6 5 4"))
    yield put("tm0.mha", mha(tm="0 0 0 0 0 0 0 0 0"))
    yield put("tmnan.mha", mha(tm="nan 0 0 0 1 0 0 0 1"))
    yield put("sp0.mha", mha(sp="0 0.7 2"))
    yield put("spneg.mha", mha(sp="-0.5 0.7 2"), v, aff=A @ np.diag([-1, 1, 1, 1.0]), either=True)
    yield put("badtype.mha", mha(typ="MET_NONSENSE"))
    yield put("4d.mha", mha(raw * 2, dims="6 5 4 2", nd=4, sp="1 1 1 1", tm="1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"))
    yield put("ascii_claims.mha", mha().replace(b"BinaryData = True", b"BinaryData = False"), either=False)
    yield put("mhd_missing.mhd", mha(b"", local="nothing.raw"))
    (folder / "x.raw").write_bytes(raw)
    yield put("mhd.mhd", mha(b"", local="x.raw"), v)
    (folder / "short.raw").write_bytes(raw[:-20])
    yield put("mhd_short.mhd", mha(b"", local="short.raw"))
    (folder / "long.raw").write_bytes(raw + bytes(20))
    yield put("mhd_long.mhd", mha(b"", local="long.raw"), v, either=True)
    yield put("shear.mha", mha(tm="1 0 0 0.5 0.8 0 0 0 1"), v, aff=None, either=True)
    yield put(
        "slope.mha",
        mha(more="ElementToIntensityFunctionSlope = 2\nElementToIntensityFunctionOffset = 5\n"),
        v * 2 + 5,
        either=True,
    )
    yield put("no_spacing.mha", mha().replace(b"ElementSpacing = 0.5 0.7 2\n", b""), v, aff=None, either=True)
    yield put("head_only.mha", b"ObjectType = Image\nNDims = 3\n")


def test_broken_nrrd(tmp_path, judge):
    """Every file ends in the array that was written or in one line; none is silently wrong, none a traceback."""
    equal, refused, wrong = judge(cases(tmp_path))
    assert not wrong, "\n".join(wrong)
    assert equal >= 18 and refused >= 33
