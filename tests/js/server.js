// A web server of one folder that answers range requests, as object stores do, and counts the bytes that it sends.

import { open } from "node:fs/promises";
import { createServer } from "node:http";
import { join, normalize } from "node:path";

/** Serve a folder on a free port of this machine; returns its URL, what it has sent, and how to stop it. */
export async function serve(folder) {
  const sent = { bytes: 0, requests: 0 };
  const server = createServer((request, response) => {
    sent.requests += 1;
    answer(folder, request, response, sent).catch((error) => {
      response.writeHead(error.code === "ENOENT" || error.code === "EISDIR" ? 404 : 500).end();
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { url: `http://127.0.0.1:${server.address().port}`, sent, close };
}

async function answer(folder, request, response, sent) {
  const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
  const file = await open(join(folder, path));
  try {
    const { size } = await file.stat();
    const [first, last] = findRange(request.headers.range, size);
    const headers = { "accept-ranges": "bytes", "content-length": last - first };
    if (request.headers.range) headers["content-range"] = `bytes ${first}-${last - 1}/${size}`;
    if (request.method === "HEAD") return response.writeHead(200, headers).end();
    const content = Buffer.alloc(last - first);
    await file.read(content, 0, content.length, first);
    sent.bytes += content.length;
    response.writeHead(request.headers.range ? 206 : 200, headers).end(content);
  } finally {
    await file.close();
  }
}

/** The half-open range that a header asks for: `bytes=0-9`, `bytes=10-` or, from the end, `bytes=-10`. */
function findRange(header, size) {
  const [, first, last] = /^bytes=(\d*)-(\d*)$/.exec(header ?? "bytes=0-");
  if (first === "") return [Math.max(0, size - Number(last)), size];
  return [Number(first), last === "" ? size : Math.min(size, Number(last) + 1)];
}
