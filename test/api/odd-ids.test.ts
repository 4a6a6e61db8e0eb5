/** Devices with ids of any script and sign, over the routes that name them. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { HistoryQuery } from '../../database/database.ts'
import { byBytes, ODD_DEVICE_IDS } from '../model/odd-ids.ts'
import { type Fixture, message, NOON, openFixture } from './api-fixture.ts'

interface Page {
  readonly items: readonly { readonly device: string }[]
  readonly next: string | null
}

let fixture: Fixture
beforeEach(async () => {
  fixture = await openFixture()
  await fixture.space.merge(ODD_DEVICE_IDS.map(device => message(device, NOON, { m: device })))
})
afterEach(() => fixture.close())

describe.each(ODD_DEVICE_IDS)('%s', id => {
  const path = `/v1/devices/${encodeURIComponent(id)}`

  test('is read by its path, and not again by its tag', async () => {
    const answer = await fixture.get(path)
    expect(await answer.json()).toMatchObject({ device: id, metrics: { m: { value: id } } })
    const again = await fixture.get(path, { 'if-none-match': answer.headers.get('etag') ?? '' })
    expect(again.status).toBe(304)
  })

  test('is found by its whole text', async () => {
    const { items } = (await (await fixture.get(`/v1/devices?search=${encodeURIComponent(id)}`)).json()) as Page
    expect(items.map(({ device }) => device)).toContain(id)
  })

  test('has a history, whose next page is behind the link', async () => {
    const asked: HistoryQuery[] = []
    fixture.database.raw = async (query, after) => {
      asked.push(query)
      return after === null ? [{ metric: 'm', ts: NOON * 1_000, receivedAt: NOON * 1_000, value: id, key: 'key' }] : []
    }
    const answer = await fixture.get(`${path}/history?limit=1&metrics=m&metrics=${encodeURIComponent(id)}`)
    expect(await answer.json()).toMatchObject({ device: id, items: [{ value: id }] })
    const [, next = ''] = /^<(.+)>; rel="next"$/.exec(answer.headers.get('link') ?? '') ?? []
    expect(next).toMatch(/^[\x21-\x7e]+$/)
    expect(await (await fixture.get(next)).json()).toMatchObject({ device: id, items: [] })
    for (const { device, metrics } of asked) expect({ device, metrics }).toEqual({ device: id, metrics: ['m', id] })
    expect(asked).toHaveLength(2)
  })

  test('that is not known is named in a problem', async () => {
    const unknown = `${id.slice(0, 60)}?`
    const answer = await fixture.get(`/v1/devices/${encodeURIComponent(unknown)}`)
    expect(answer.status).toBe(404)
    expect(await answer.json()).toMatchObject({ code: 'unknown_device', detail: `${unknown} has sent none.` })
  })
})

test('pages list all of them in the order of their bytes, by cursor and by link', async () => {
  const seen: string[] = []
  for (let path = '/v1/devices?limit=7'; path !== ''; ) {
    const answer = await fixture.get(path)
    const { items, next } = (await answer.json()) as Page
    seen.push(...items.map(({ device }) => device))
    path = /^<(.+)>; rel="next"$/.exec(answer.headers.get('link') ?? '')?.[1] ?? ''
    expect(path).toBe(next === null ? '' : `/v1/devices?limit=7&cursor=${next}`)
  }
  expect(seen).toEqual(ODD_DEVICE_IDS.toSorted(byBytes))
})
