/** The command line as a shell uses it. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

let dir: string

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'surgetank-main-'))
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

describe('a command whose reader has left, such as `head`', () => {
  it.each([
    ['finds nothing wrong', '127.0.0.1', 0],
    ['finds what stops a start', '192.0.2.1', 1],
  ])('ends without a word and with its own exit code when it %s', async (_, listen, code) => {
    const ports = { SURGETANK_MQTT_PORT: '0', SURGETANK_HTTP_PORT: '0', SURGETANK_SQL_PORT: '0' }
    const address = { SURGETANK_LISTEN: listen, SURGETANK_UNAUTHENTICATED: 'allow' }
    const env = { SURGETANK_DATA_DIR: dir, ...ports, ...address }
    const child = spawn(process.execPath, ['dist/main.js', 'doctor'], { env })
    child.stdout.destroy()
    let said = ''
    child.stderr.on('data', text => (said += text))
    expect(await once(child, 'close')).toEqual([code, null])
    expect(said).toBe('')
  })
})
