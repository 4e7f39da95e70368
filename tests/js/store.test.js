// Reads stores as a web map would, and compares with what Python and rasterio found: see test_javascript.py.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { cp, open, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { FileSystemStore } from "@zarrita/storage";
import { asyncBufferFromFile, asyncBufferFromUrl, parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import * as zarr from "zarrita";

import { serve } from "./server.js";

const folder = process.env.STORES;
const expected = JSON.parse(await readFile(join(folder, "expected.json")));

const hash = ({ buffer, byteOffset, byteLength }) =>
  createHash("sha256").update(new Uint8Array(buffer, byteOffset, byteLength)).digest("hex");

const openArray = (store, name) => zarr.open.v3(zarr.root(store).resolve(name), { kind: "array" });

let server;
before(async () => {
  server = await serve(folder);
});
after(() => server.close());

const openers = {
  "from disk": {
    images: (name) => new FileSystemStore(join(folder, name, "images.zarr")),
    table: (name) => asyncBufferFromFile(join(folder, name, "patches.parquet")),
  },
  "over HTTP": {
    images: (name) => new zarr.FetchStore(`${server.url}/${name}/images.zarr`),
    table: (name) => asyncBufferFromUrl({ url: `${server.url}/${name}/patches.parquet` }),
  },
};

for (const [where, opener] of Object.entries(openers)) {
  for (const [name, { arrays, patches }] of Object.entries(expected)) {
    describe(`${name} ${where}`, () => {
      test("every array gives the pixels that rasterio gives", async () => {
        const store = opener.images(name);
        for (const [array, { shape, dtype, pixels }] of Object.entries(arrays)) {
          const opened = await openArray(store, array);
          assert.deepEqual([opened.shape, opened.dtype], [shape, dtype]);
          const rest = shape.slice(1).map(() => null);
          for (const [index, checksum] of Object.entries(pixels)) {
            const patch = await zarr.get(opened, [Number(index), ...rest]);
            assert.equal(hash(patch.data), checksum, `${array} of patch ${index}`);
          }
        }
      });

      test("the table gives the rows that Arrow gives", async () => {
        const columns = Object.keys(patches[0]);
        const rows = await parquetReadObjects({ file: await opener.table(name), compressors, columns });
        const plain = rows.map((row) => JSON.parse(JSON.stringify(row)));
        assert.deepEqual(plain, patches);
      });

      test("the coordinates name patches and bands", async () => {
        const store = opener.images(name);
        const names = await zarr.get(await openArray(store, "patch_id"));
        assert.deepEqual(Array.from(names.data), patches.map((patch) => patch.patch_id));
        const bands = await zarr.get(await openArray(store, "band_20m"));
        assert.deepEqual(Array.from(bands.data), (await openArray(store, "s2_20m")).attrs.bands);
      });

      test("one request tells of every array", async () => {
        const store = await zarr.withConsolidatedMetadata(opener.images(name), { format: "v3" });
        const paths = store.contents().map(({ path }) => path);
        for (const array of Object.keys(arrays)) assert.ok(paths.includes(`/${array}`));
      });
    });
  }
}

test("one band of one patch costs the bytes of a patch and not of a shard", async () => {
  const array = await openArray(new zarr.FetchStore(`${server.url}/lz4/images.zarr`), "s2_10m");
  const before = { ...server.sent };
  const red = await zarr.get(array, [1, array.attrs.bands.indexOf("B04"), null, null]);
  assert.deepEqual(red.shape, [120, 120]);
  const { size } = await stat(join(folder, "lz4/images.zarr/s2_10m/c/0/0/0/0"));
  assert.ok(server.sent.bytes - before.bytes < size / 4);
  assert.ok(server.sent.requests - before.requests <= 3);
});

test("zarrita does not look at checksums: without a codec, damage goes unnoticed", async () => {
  const copy = join(folder, "damaged.zarr");
  await cp(join(folder, "none/images.zarr"), copy, { recursive: true });
  try {
    const shard = await open(join(copy, "s2_60m/c/0/0/0/0"), "r+");
    const { buffer } = await shard.read(Buffer.alloc(1), 0, 1, 100);
    await shard.write(Buffer.from([buffer[0] ^ 1]), 0, 1, 100);
    await shard.close();
    const array = await openArray(new FileSystemStore(copy), "s2_60m");
    const patch = await zarr.get(array, [0, null, null, null]);
    assert.notEqual(hash(patch.data), expected.none.arrays.s2_60m.pixels[0]);
  } finally {
    await rm(copy, { recursive: true });
  }
});
