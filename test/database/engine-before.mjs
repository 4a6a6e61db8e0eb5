/** Writes a folder as the versions did that gave the engine the whole path of it, and ends without closing it. */
import { mkdirSync } from 'node:fs'
import { openEngine } from '../../dist/database/embedded/engine.js'

const folder = process.argv[2] ?? ''
mkdirSync(folder, { recursive: true })
const { control } = openEngine(folder)
await control.run('CREATE DATABASE old')
await control.run('CREATE TABLE old.t (x UInt64) ENGINE = MergeTree ORDER BY x')
await control.run('INSERT INTO old.t SELECT number FROM numbers(1000)')
process.kill(process.pid, 'SIGKILL')
