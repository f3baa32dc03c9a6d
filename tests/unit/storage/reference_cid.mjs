// Reads sizes in bytes, one a line, and prints the root CID of each synthetic file, by
// ipfs-unixfs-importer. Byte i of a file is (i mod 1 MiB) * 7 mod 251. With the argument
// `--hash-once` equal leaves are hashed once, so that a tebibyte takes seconds.
import { createInterface } from 'node:readline'
import { importFile } from 'ipfs-unixfs-importer'
import { BlackHoleBlockstore } from 'blockstore-core/black-hole'

const LEAF = 1 << 20
const leaf = Uint8Array.from({ length: LEAF }, (_, i) => (i * 7) % 251)
const store = new BlackHoleBlockstore()
const options = { profile: 'unixfs-v1-2025' }

async function * content (size) {
  for (let left = size; left > 0; left -= LEAF) {
    yield left < LEAF ? leaf.subarray(0, left) : leaf
  }
}

async function * hashOnce (file) {
  const entries = new Map()
  for await (const block of file.content) {
    if (!entries.has(block.length)) {
      const { cid } = await importFile({ content: block }, store, options)
      entries.set(block.length, { cid, size: BigInt(block.length), block })
    }
    yield async () => entries.get(block.length)
  }
}

const bufferImporter = process.argv.includes('--hash-once') ? hashOnce : undefined
for await (const line of createInterface({ input: process.stdin })) {
  const file = { content: content(Number(line)) }
  const { cid } = await importFile(file, store, { ...options, bufferImporter })
  console.log(`${cid}`)
}
