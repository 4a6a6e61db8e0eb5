/** The walls alone: what analysts must not get through reaches nothing either when it comes from who is not judged [G6]. */
import { once } from 'node:events'
import { request } from 'node:http'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { allStand } from '../../../database/embedded/walls/walls.ts'
import { wallsHere } from '../../servers/walls-here.ts'
import { type Fixture, openFixture, scalar } from '../database-fixture.ts'
import { ONCE } from '../walls-corpus.ts'
import { type Canaries, openCanaries, WORD } from './canaries.ts'
import { attempts } from './corpus.ts'

let on: Fixture
let canaries: Canaries
beforeAll(async () => {
  on = await openFixture()
  await on.database.migrate()
  canaries = await openCanaries(on.folder)
})
afterAll(async () => {
  await canaries.close()
  await on.close()
})

/** As many as run at a time: none waits for another. */
const AT_ONCE = 3
/** Denied what they need, or by their nature, these go on, and keep a lane: each is tried in one form. A name may begin with an escape. */
const ENDLESS = /elta\w*lake|ongodb|dbc\b|models\b|atboost|uzzquery|oop(?=\W)/i
const ENDLESS_FORMS_MAX = 1
const ENDLESS_MS = 3_000
/** For what hangs only. */
const ANSWER_MS_MAX = 120_000
const ADDRESS = `/?${new URLSearchParams(ONCE)}`
/** Whoever writes may do this to the engine and its tables. */
const OWN = /\b(?:SHUTDOWN|KILL QUERY|DROP TABLE)\b/

function chosen(): string[] {
  const tried = new Map<string, number>()
  return attempts(canaries)
    .map(({ sql }) => sql)
    .filter(sql => !OWN.test(sql))
    .filter(sql => {
      const [name] = ENDLESS.exec(sql.toLowerCase()) ?? []
      if (name === undefined) return true
      tried.set(name, (tried.get(name) ?? 0) + 1)
      return (tried.get(name) ?? 0) <= ENDLESS_FORMS_MAX
    })
}

/** Null when it was not answered in time. One that breaks off, as of a statement that fails midway, counts as far as it came. */
async function answerTo(sql: string): Promise<string | null> {
  const sent = request({ socketPath: on.access.socketPath ?? '', method: 'POST', path: ADDRESS, agent: false })
  const late = AbortSignal.timeout(ENDLESS.test(sql) ? ENDLESS_MS : ANSWER_MS_MAX)
  late.addEventListener('abort', () => sent.destroy())
  const chunks: Buffer[] = []
  try {
    sent.end(sql)
    const [response] = await once(sent, 'response')
    for await (const chunk of response) chunks.push(chunk)
  } catch (error) {
    if (late.aborted) return null
    if (chunks.length === 0) throw error
  }
  return Buffer.concat(chunks).toString()
}

describe.runIf(wallsHere)('behind the walls, what reaches out', () => {
  test('reads no canary, contacts nobody and writes nothing, in whatever form', async () => {
    expect(allStand(on.child.walls)).toBe(true)
    const all = chosen()
    const read: string[] = []
    const unanswered: string[] = []
    const queue = all.values()
    const work = async () => {
      for (const sql of queue) {
        const answer = await answerTo(sql)
        if (answer === null && !ENDLESS.test(sql)) unanswered.push(sql)
        else if (answer?.includes(WORD)) read.push(sql)
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, work))
    expect(unanswered).toEqual([])
    expect(read).toEqual([])
    expect(canaries.connections()).toBe(0)
    expect(canaries.written()).toEqual([])
    expect(all.length).toBeGreaterThan(2_000)
    expect(await scalar(on.writer, 'SELECT 1')).toBe(1)
  })
})
