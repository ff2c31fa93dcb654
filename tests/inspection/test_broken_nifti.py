"""Odd and broken NIfTI files, written byte by byte here, so that what is expected depends on no reader."""

from __future__ import annotations

import bz2
import gzip
import os
import struct
import zipfile
from types import SimpleNamespace

import numpy as np

CODES = {
    "u1": 2,
    "i2": 4,
    "i4": 8,
    "f4": 16,
    "f8": 64,
    "i1": 256,
    "u2": 512,
    "u4": 768,
    "i8": 1024,
    "u8": 1280,
    "c8": 32,
    "c16": 1792,
    "f16": 1536,
    "c32": 2048,
}
AFFINE = np.array([[-0.9, 0.1, 0, 30], [0.1, 0.9, 0, -20], [0, 0, 2.5, 5], [0, 0, 0, 1.0]])


def item(name, path, truth=None, affine=None, words=None, either=False, atol=0):
    """``truth``: the array due, or ``None`` where the file must be refused; ``either``: equal or refused."""
    return SimpleNamespace(name=name, path=path, truth=truth, affine=affine, words=words, either=either, atol=atol)


def quaternion(R):
    # rotation matrix (det +1) -> b, c, d with a >= 0
    a = np.sqrt(max(0, 1 + R[0, 0] + R[1, 1] + R[2, 2])) / 2
    if a > 1e-3:
        return (R[2, 1] - R[1, 2]) / (4 * a), (R[0, 2] - R[2, 0]) / (4 * a), (R[1, 0] - R[0, 1]) / (4 * a)
    w, v = np.linalg.eigh(R + R.T)
    q = v[:, -1]
    return tuple(q)


def header(shape, code, bits, affine=AFFINE, version=1, e="<", offset=None, **over):
    sp = np.linalg.norm(affine[:3, :3], axis=0)
    R = affine[:3, :3] / sp
    qfac = 1.0
    if np.linalg.det(R) < 0:
        R = R.copy()
        R[:, 2] *= -1
        qfac = -1.0
    b, c, d = quaternion(R)
    f = {
        "dim": [len(shape), *shape] + [1] * (7 - len(shape)),
        "datatype": code,
        "bitpix": bits,
        "pixdim": [qfac, *sp, 1, 1, 1, 1],
        "vox_offset": offset or (352 if version == 1 else 544),
        "scl_slope": 1.0,
        "scl_inter": 0.0,
        "xyzt_units": 2,
        "cal_max": 0.0,
        "cal_min": 0.0,
        "qform_code": 1,
        "sform_code": 1,
        "quatern": [b, c, d],
        "qoffset": list(affine[:3, 3]),
        "srow": list(affine[:3].ravel()),
        "magic": (b"n+1\0" if version == 1 else b"n+2\0\r\n\x1a\n"),
        "sizeof": 348 if version == 1 else 540,
        "dim_info": 0,
        "intent_code": 0,
    }
    f.update(over)
    if version == 1:
        h = bytearray(348)

        def p(fmt, at, *v):
            return struct.pack_into(e + fmt, h, at, *v)

        p("i", 0, f["sizeof"])
        h[38:39] = b"r"
        p("B", 39, f["dim_info"])
        p("8h", 40, *f["dim"])
        p("h", 68, f["intent_code"])
        p("h", 70, f["datatype"])
        p("h", 72, f["bitpix"])
        p("8f", 76, *f["pixdim"])
        p("f", 108, f["vox_offset"])
        p("f", 112, f["scl_slope"])
        p("f", 116, f["scl_inter"])
        p("B", 123, f["xyzt_units"])
        p("f", 124, f["cal_max"])
        p("f", 128, f["cal_min"])
        p("h", 252, f["qform_code"])
        p("h", 254, f["sform_code"])
        p("3f", 256, *f["quatern"])
        p("3f", 268, *f["qoffset"])
        p("12f", 280, *f["srow"])
        h[344:348] = f["magic"]
    else:
        h = bytearray(540)

        def p(fmt, at, *v):
            return struct.pack_into(e + fmt, h, at, *v)

        p("i", 0, f["sizeof"])
        h[4:12] = f["magic"]
        p("h", 12, f["datatype"])
        p("h", 14, f["bitpix"])
        p("8q", 16, *f["dim"])
        p("8d", 104, *f["pixdim"])
        p("q", 168, int(f["vox_offset"]))
        p("d", 176, f["scl_slope"])
        p("d", 184, f["scl_inter"])
        p("d", 192, f["cal_max"])
        p("d", 200, f["cal_min"])
        p("i", 344, f["qform_code"])
        p("i", 348, f["sform_code"])
        p("3d", 352, *f["quatern"])
        p("3d", 376, *f["qoffset"])
        p("12d", 400, *f["srow"])
        p("i", 500, f["xyzt_units"])
        p("i", 504, f["intent_code"])
    return bytes(h)


def nii(array, kind, e="<", version=1, gap=b"\0\0\0\0", **over):
    dt = np.dtype(e + kind)
    shape = over.pop("shape", array.shape)
    return (
        header(shape, over.pop("code", CODES[kind]), over.pop("bits", dt.itemsize * 8), e=e, version=version, **over)
        + gap
        + array.astype(dt).tobytes("F")
    )


def volume(seed=0, shape=(12, 10, 8)):
    a = np.random.default_rng(seed).integers(0, 100, shape)
    a[2:5, 3:8, 1:4] += 27
    return a


def cases(folder):
    folder.mkdir(parents=True, exist_ok=True)
    v = volume()

    def put(name, content, truth=None, affine=AFFINE, words=None, either=False):
        path = folder / name
        path.write_bytes(content)
        return item("nifti/" + name, path, truth, affine if truth is not None else None, words, either)

    for kind in CODES:
        for e in "<>":
            for version in (1, 2):
                for gz in (False, True):
                    name = f"dt_{kind}_{'le' if e == '<' else 'be'}_v{version}.nii" + (".gz" if gz else "")
                    a = v.astype(float) if kind[0] in "f" else v
                    if kind[0] == "c":
                        a = v + 1j * v
                    content = nii(a, kind, e, version)
                    yield put(
                        name,
                        gzip.compress(content) if gz else content,
                        None if kind[0] == "c" else a,
                        words="cannot be used|complex" if kind[0] == "c" else None,
                        either=kind == "f16",
                    )
    # signed negatives
    neg = v - 60
    for kind in ("i1", "i2", "i4", "i8", "f4", "f8"):
        yield put(f"neg_{kind}.nii", nii(neg, kind), neg)
    # RGB
    rgb = np.random.default_rng(1).integers(0, 256, (12, 10, 8, 3)).astype(np.uint8)
    yield put("rgb24.nii", header((12, 10, 8), 128, 24) + b"\0" * 4 + np.moveaxis(rgb, 3, 0).tobytes("F"), rgb)
    rgba = np.concatenate([rgb, np.full((12, 10, 8, 1), 255, np.uint8)], 3)
    yield put("rgba32.nii", header((12, 10, 8), 2304, 32) + b"\0" * 4 + np.moveaxis(rgba, 3, 0).tobytes("F"), rgb)
    rgba2 = rgba.copy()
    rgba2[..., 3] = np.random.default_rng(2).integers(0, 256, (12, 10, 8))
    yield put(
        "rgba32_alpha_varies.nii",
        header((12, 10, 8), 2304, 32) + b"\0" * 4 + np.moveaxis(rgba2, 3, 0).tobytes("F"),
        None,
        words="transparent|alpha",
    )
    yield put(
        "rgb24_2d.nii",
        header((12, 10), 128, 24) + b"\0" * 4 + np.moveaxis(rgb[:, :, 0], 2, 0).tobytes("F"),
        rgb[:, :, 0],
        either=True,
    )
    yield put("dt_binary.nii", header((12, 10, 8), 1, 1) + b"\0" * 4 + bytes(120), words="binary")
    yield put("dt_unknown.nii", header((12, 10, 8), 0, 16) + b"\0" * 4 + bytes(1920))
    yield put("dt_999.nii", header((12, 10, 8), 999, 16) + b"\0" * 4 + bytes(1920))
    yield put("dt_all.nii", header((12, 10, 8), 255, 0) + b"\0" * 4 + bytes(1920))
    nan = float("nan")
    inf = float("inf")
    # scaling
    for n, (s, i, t) in enumerate(
        [
            (0, 0, v),
            (0, 5, v),
            (nan, nan, v),
            (nan, 3, v),
            (2, 0, 2 * v),
            (-1, 0, -v),
            (0.5, -3, 0.5 * v - 3),
            (1, -1024, v - 1024),
            (1e-3, 0, 1e-3 * v),
            (-2.5, 7, -2.5 * v + 7),
        ]
    ):
        for kind in ("i2", "u1", "f4"):
            yield put(f"scl{n}_{kind}.nii.gz", gzip.compress(nii(v, kind, scl_slope=s, scl_inter=i)), t)
    yield put("scl_inf.nii", nii(v, "i2", scl_slope=inf), words="scl_slope")
    yield put("scl_ninf.nii", nii(v, "i2", scl_slope=-inf), words="scl_slope")
    yield put("scl_inter_nan.nii", nii(v, "i2", scl_slope=1, scl_inter=nan))
    yield put("scl_inter_inf.nii", nii(v, "i2", scl_slope=1, scl_inter=inf))
    yield put("scl_huge.nii", nii(v + 1, "i2", scl_slope=3e38), words="float32")
    yield put("cal_max.nii", nii(v, "i2", cal_max=10.0, cal_min=5.0), v)
    yield put("cal_nan.nii", nii(v, "i2", cal_max=nan, cal_min=nan), v)
    # values
    f = v.astype(float)
    for bad in (nan, inf, -inf):
        g = f.copy()
        g[3, 3, 3] = bad
        yield put(f"value_{bad}.nii.gz", gzip.compress(nii(g, "f4")), words="NaN or infinite")
    g = f.copy()
    g[1, 1, 1] = 1e300
    yield put("value_1e300.nii", nii(g, "f8"), words="float32")
    g = f.copy()
    g[0, 0, 0] = 1e-42
    yield put("value_denormal.nii", nii(g, "f4"), g.astype(np.float32))
    big = v.astype(np.int64)
    big[0, 0, 0] = 2**60 + 1
    yield put("value_2e60.nii", nii(big, "i8"), big, either=True)
    bu = v.astype(np.uint64)
    bu[0, 0, 0] = 2**63 + 5
    yield put("value_2e63.nii", nii(bu, "u8"), bu, either=True)
    # dims
    for n, dim in enumerate(
        [
            [0, 12, 10, 8, 1, 1, 1, 1],
            [8, 12, 10, 8, 1, 1, 1, 1],
            [-3, 12, 10, 8, 1, 1, 1, 1],
            [3, -12, 10, 8, 1, 1, 1, 1],
            [3, 0, 10, 8, 1, 1, 1, 1],
            [2, 12, 10, 8, 1, 1, 1, 1],
            [1, 12, 10, 8, 1, 1, 1, 1],
            [4, 12, 10, 8, 2, 1, 1, 1],
            [4, 12, 10, 8, 0, 1, 1, 1],
            [3, 12, 10, 9, 1, 1, 1, 1],
            [3, 12, 10, 7, 1, 1, 1, 1],
            [3, 32767, 32767, 32767, 1, 1, 1, 1],
            [7, 32767, 32767, 32767, 32767, 32767, 32767, 32767],
            [3, 12, 10, 8, 5, 1, 1, 1],
            [5, 12, 10, 8, 1, 1, 0, 0],
        ]
    ):
        ok = n in (13, 14)
        yield put(f"dim{n}.nii.gz", gzip.compress(nii(v, "i2", dim=dim)), v if ok else None, either=ok)
    v2dim = [3, 2**40, 2**40, 2**40, 1, 1, 1, 1]
    yield put("dim_v2_huge.nii.gz", gzip.compress(nii(v, "i2", version=2, dim=v2dim)), words="GiB|impossible")
    yield put("dim_v2_neg.nii", nii(v, "i2", version=2, dim=[3, -12, 10, 8, 1, 1, 1, 1]))
    yield put("dim_v2_n0big.nii", nii(v, "i2", version=2, dim=[2**40, 12, 10, 8, 1, 1, 1, 1]))
    yield put(
        "declares_4GiB.nii.gz",
        gzip.compress(header((2047, 1024, 1024), 4, 16) + b"\0" * 4 + bytes(4 * 2**20)),
        words="GiB|bytes",
    )
    # shapes
    yield put("2d.nii", nii(v[:, :, 0], "i2"), v[:, :, 0])
    yield put("2d_as3.nii", nii(v[:, :, :1], "i2"), v[:, :, :1])
    yield put("1d.nii", nii(v[:, 0, 0], "i2"), v[:, 0, 0], either=True)
    yield put("4d.nii", nii(np.stack([v, v + 1], 3), "i2"), np.stack([v, v + 1], 3))
    yield put("4d_single.nii", nii(v[..., None], "i2"), v, either=True)
    yield put(
        "5d_vector.nii",
        nii(np.stack([v, v + 1, v + 2], 3)[:, :, :, None], "f4", intent_code=1007),
        np.stack([v, v + 1, v + 2], 3),
    )
    yield put("5d_time.nii", nii(np.zeros((12, 10, 8, 2, 3)), "f4"), words="5D")
    yield put("7d_ones.nii", nii(v.reshape(12, 10, 8, 1, 1, 1, 1), "i2"), v, either=True)
    # offset
    for n, (o, gap) in enumerate(
        [
            (0, b"\0" * 4),
            (348, b""),
            (352.0, b"\0" * 4),
            (353, b"\0" * 5),
            (368, b"\0" * 20),
            (1e6, b"\0" * 4),
            (-352, b"\0" * 4),
            (351, b"\0" * 4),
            (360, b"\0" * 4),
            (nan, b"\0" * 4),
            (inf, b"\0" * 4),
            (1e30, b"\0" * 4),
        ]
    ):
        ok = n in (1, 2, 3, 4)
        yield put(f"offset{n}.nii", nii(v, "i2", vox_offset=o, gap=gap), v if ok else None, either=n == 1)
    ext = b"\1\0\0\0" + struct.pack("<2i", 32, 6) + b"a comment text here....."[:24]
    yield put("ext_comment.nii", nii(v, "i2", vox_offset=384, gap=ext), v)
    afni = b"\1\0\0\0" + struct.pack("<2i", 4096, 4) + b"<AFNI attr/>".ljust(4088)
    yield put("ext_afni.nii.gz", gzip.compress(nii(v, "i2", vox_offset=352 + 4096, gap=afni)), v)
    yield put("ext_afni_v2.nii.gz", gzip.compress(nii(v, "i2", version=2, vox_offset=544 + 4096, gap=afni)), v)
    yield put(
        "ext_bad_esize.nii",
        nii(v, "i2", vox_offset=384, gap=b"\1\0\0\0" + struct.pack("<2i", -5, 6) + b"x" * 24),
        v,
        either=True,
    )
    yield put("ext_not_in_offset.nii", nii(v, "i2", vox_offset=352, gap=ext))
    # length
    c = nii(v, "i2")
    for n in (1, 2, 100, len(c) - 400, len(c) - 352, len(c) - 348, len(c) - 347, len(c) - 100, len(c) - 4, len(c) - 1):
        yield put(f"cut{n}.nii", c[:-n])
        z = gzip.compress(c)
        if n < len(z):
            yield put(f"cut{n}.nii.gz", z[:-n])
        yield put(f"cutinside{n}.nii.gz", gzip.compress(c[:-n]))
    yield put("trailing1.nii", c + b"\0", words="more data|bytes")
    yield put("trailing_slice.nii.gz", gzip.compress(c + bytes(240)), words="more data|bytes")
    yield put("trailing_garbage_after_gz.nii.gz", gzip.compress(c) + b"garbage!")
    yield put("trailing_zeros_after_gz.nii.gz", gzip.compress(c) + bytes(512), v, either=True)
    yield put("multimember.nii.gz", gzip.compress(c[:500]) + gzip.compress(c[500:1000]) + gzip.compress(c[1000:]), v)
    yield put("multimember_inheader.nii.gz", gzip.compress(c[:100]) + gzip.compress(c[100:]), v)
    yield put("multimember_emptyfirst.nii.gz", gzip.compress(b"") + gzip.compress(c), v)
    yield put("multimember_lastcut.nii.gz", gzip.compress(c[:500]) + gzip.compress(c[500:])[:-9])
    yield put("multimember_lastgone.nii.gz", gzip.compress(c[:500]) + gzip.compress(c[500:1000]))
    yield put("gz_named_plain.nii", gzip.compress(c), v)
    yield put("plain_named.nii.gz", c, v)
    yield put("gz_no_suffix", gzip.compress(c), v)
    yield put("nii_no_suffix", c, v)
    yield put("nii_named.png", c, v, either=True)
    yield put("nii_named.dcm", c, v, either=True)
    yield put("double.nii.gz", gzip.compress(gzip.compress(c)))
    yield put("bz2.nii.gz", bz2.compress(c))
    yield put("gz_empty.nii.gz", gzip.compress(b""))
    yield put("gz_headeronly.nii.gz", gzip.compress(c)[:10])
    yield put("gz_short.nii.gz", b"\x1f\x8b")
    yield put("gz_badmethod.nii.gz", b"\x1f\x8b\x07" + gzip.compress(c)[3:])
    crc = bytearray(gzip.compress(c))
    crc[-6] ^= 1
    yield put("gz_crc.nii.gz", bytes(crc))
    isz = bytearray(gzip.compress(c))
    isz[-1] ^= 1
    yield put("gz_isize.nii.gz", bytes(isz))
    yield put("bomb.nii.gz", gzip.compress(c + bytes(200 * 2**20), 1), words="more data|bytes")
    yield put("empty.nii", b"", words="empty")
    yield put("empty.nii.gz", b"", words="empty")
    yield put("html.nii.gz", b"<html><body>404 Not Found</body></html>")
    yield put("lfs.nii.gz", b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n")
    yield put("random.nii", np.random.default_rng(3).bytes(4000))
    yield put("zeros.nii", bytes(4000))
    zp = folder / "zip.nii.gz"
    with zipfile.ZipFile(zp, "w") as z:
        z.writestr("a.nii", c)
    yield item("nifti/zip.nii.gz", zp)
    # magic and pairs
    yield put("magic_pair.nii", nii(v, "i2", magic=b"ni1\0"))
    yield put("magic_zero.nii", nii(v, "i2", magic=b"\0\0\0\0"))
    yield put("magic_bad.nii", nii(v, "i2", magic=b"xyz\0"))
    yield put("magic_v2_crlf.nii", nii(v, "i2", version=2, magic=b"n+2\0\n\n\x1a\n"), v, either=True)
    yield put("pair.hdr", header((12, 10, 8), 4, 16, magic=b"ni1\0", offset=0))
    yield put("pair.img", v.astype("<i2").tobytes("F"))
    yield put("analyze.hdr", header((12, 10, 8), 4, 16, magic=b"\0\0\0\0", offset=0, qform_code=0, sform_code=0))
    yield put("analyze.img", v.astype("<i2").tobytes("F"))
    yield put("sizeof_bad.nii", nii(v, "i2", sizeof=349))
    yield put("swapped_half.nii", b"\0\0\x01\x5c" + c[4:], v, either=True)
    # geometry
    yield put("none_form.nii", nii(v, "i2", qform_code=0, sform_code=0), words="left and right")
    yield put("q_only.nii", nii(v, "i2", sform_code=0), v)
    yield put("s_only.nii", nii(v, "i2", qform_code=0), v)
    yield put("q_only_srow_garbage.nii", nii(v, "i2", sform_code=0, srow=[nan] * 12), v)
    yield put("s_only_q_garbage.nii", nii(v, "i2", qform_code=0, quatern=[nan] * 3, qoffset=[1e30] * 3), v)

    def srow(A):
        return list(np.asarray(A, float)[:3].ravel())

    flip = AFFINE @ np.diag([-1, 1, 1, 1.0])
    yield put("qs_flip.nii", nii(v, "i2", srow=srow(flip)), words="disagree")
    sh = AFFINE.copy()
    sh[0, 3] += 50
    yield put("qs_shift50.nii", nii(v, "i2", srow=srow(sh)), words="disagree")
    sh = AFFINE.copy()
    sh[0, 3] += 0.01
    yield put("qs_shift001.nii", nii(v, "i2", srow=srow(sh)), v, affine=sh)
    z = AFFINE.copy()
    z[:, 2] = 0
    yield put("s_singular.nii", nii(v, "i2", srow=srow(z)), words="singular")
    z = AFFINE.copy()
    z[:3, 2] = z[:3, 1] * 2.5 / np.linalg.norm(z[:3, 1])
    yield put("s_parallel.nii", nii(v, "i2", srow=srow(z)), words="singular|disagree")
    yield put("s_zero.nii", nii(v, "i2", srow=[0] * 12))
    yield put("s_nan.nii", nii(v, "i2", srow=[nan] * 12), words="singular or not finite")
    yield put("s_inf.nii", nii(v, "i2", srow=[inf] * 12), words="singular or not finite")
    yield put("s_offset_nan.nii", nii(v, "i2", srow=srow(AFFINE)[:3] + [nan] + srow(AFFINE)[4:]))
    yield put("s_offset_1e30.nii", nii(v, "i2", qform_code=0, srow=srow(AFFINE)[:3] + [1e30] + srow(AFFINE)[4:]))
    s2 = AFFINE.copy()
    s2[:3, :3] *= 2
    yield put("s_size_not_pixdim.nii", nii(v, "i2", qform_code=0, srow=srow(s2)), words="voxel size")
    yield put("q_bad_quat.nii", nii(v, "i2", sform_code=0, quatern=[0.9, 0.9, 0.9]))
    yield put("q_nan.nii", nii(v, "i2", sform_code=0, quatern=[nan, 0, 0]))
    yield put("q_offset_nan.nii", nii(v, "i2", sform_code=0, qoffset=[nan, 0, 0]))
    yield put("q_nan_both.nii", nii(v, "i2", quatern=[nan, 0, 0]))
    D = np.diag([2.0, 2, 2.5, 1])
    yield put("qfac0.nii", nii(v, "i2", affine=D, sform_code=0, pixdim=[0, 2, 2, 2.5, 1, 1, 1, 1]), v, affine=D)
    yield put("qfac0_both.nii", nii(v, "i2", affine=D, pixdim=[0, 2, 2, 2.5, 1, 1, 1, 1]), v, affine=D)
    Dn = np.diag([2.0, 2, -2.5, 1])
    yield put("qfac_minus.nii", nii(v, "i2", affine=Dn, sform_code=0), v, affine=Dn)
    yield put(
        "qfac5.nii", nii(v, "i2", affine=D, sform_code=0, pixdim=[5, 2, 2, 2.5, 1, 1, 1, 1]), v, affine=D, either=True
    )
    yield put("qfac_nan.nii", nii(v, "i2", affine=D, sform_code=0, pixdim=[nan, 2, 2, 2.5, 1, 1, 1, 1]))
    yield put("qfac_s_only0.nii", nii(v, "i2", affine=D, qform_code=0, pixdim=[0, 2, 2, 2.5, 1, 1, 1, 1]), v, affine=D)
    yield put(
        "pixdim_neg.nii",
        nii(v, "i2", affine=D, qform_code=0, pixdim=[1, -2, 2, 2.5, 1, 1, 1, 1]),
        v,
        affine=D,
        either=True,
    )
    yield put("pixdim_neg_q.nii", nii(v, "i2", affine=D, sform_code=0, pixdim=[1, -2, 2, 2.5, 1, 1, 1, 1]))
    yield put("pixdim_zero.nii", nii(v, "i2", affine=D, pixdim=[1, 0, 2, 2.5, 1, 1, 1, 1]))
    yield put("pixdim_nan.nii", nii(v, "i2", affine=D, pixdim=[1, nan, 2, 2.5, 1, 1, 1, 1]))
    yield put("pixdim_inf.nii", nii(v, "i2", affine=D, pixdim=[1, inf, 2, 2.5, 1, 1, 1, 1]))
    for u, name in ((1, "m"), (3, "um")):
        yield put(f"unit_{name}.nii", nii(v, "i2", xyzt_units=u), words="metres")
    yield put("unit_0.nii", nii(v, "i2", xyzt_units=0), v)
    yield put("unit_sec.nii", nii(v, "i2", xyzt_units=2 | 8), v)
    yield put("unit_7.nii", nii(v, "i2", xyzt_units=7), v, either=True)
    T = np.diag([0.001, 0.001, 0.001, 1])
    H = np.diag([100.0, 100, 100, 1])
    yield put("spacing_tiny.nii", nii(v, "i2", affine=T), words="implausible")
    yield put("spacing_huge.nii", nii(v, "i2", affine=H), words="implausible")
    yield put("qcode9.nii", nii(v, "i2", qform_code=9))
    yield put("scode_neg.nii", nii(v, "i2", sform_code=-1))
    shear = AFFINE.copy()
    shear[0, 2] += 0.5
    shear[:3, 2] *= 2.5 / np.linalg.norm(shear[:3, 2])
    yield put("shear_s_only.nii", nii(v, "i2", qform_code=0, srow=srow(shear)), v, affine=shear, either=True)
    # not files
    d = folder / "folder.nii"
    d.mkdir(exist_ok=True)
    yield item("nifti/folder.nii", d)
    d = folder / "folder_with.nii.gz"
    d.mkdir(exist_ok=True)
    (d / "a.nii").write_bytes(c)
    yield item("nifti/folder_with.nii.gz", d)
    link = folder / "dangling.nii"
    if not link.is_symlink():
        link.symlink_to("nowhere.nii")
    yield item("nifti/dangling.nii", link, words="not found")
    link = folder / "loop.nii"
    if not link.is_symlink():
        link.symlink_to("loop.nii")
    yield item("nifti/loop.nii", link)
    p = folder / "fifo.nii"
    if not p.exists():
        os.mkfifo(p)
    yield item("nifti/fifo.nii", p)
    yield put("naïve ünïcode 影像 scan.nii", c, v)
    yield put("with spaces & $HOME %20 #.nii", c, v)
    yield put("new\nline.nii", c[:-5])


def test_broken_nifti(tmp_path, judge):
    """Every file ends in the array that was written or in one line; none is silently wrong, none a traceback."""
    equal, refused, wrong = judge(cases(tmp_path))
    assert not wrong, "\n".join(wrong)
    assert equal >= 150 and refused >= 140
