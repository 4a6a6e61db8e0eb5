/** The fleet of habits that the rounds run: about 450 messages a second, over 24 connections. */
import type { Line } from './habit-fleet.ts'
import {
  type Habit,
  inManyForms,
  inMicros,
  inMillis,
  inNanos,
  listInSeconds,
  listWithoutTime,
  numbered,
  toggleInSeconds,
  toggleWithoutTime,
} from './habits.ts'

type Manner = Omit<Line, 'clientId' | 'devices'>

const SLEEPS: Manner = { clean: true, qos: 1, resends: 'dup', away: 'sleeps' }
const MEASURES: Manner = { ...SLEEPS, away: 'measures' }
/** Each message is stored once, whatever it says. */
const EXACT: Manner = { ...MEASURES, clean: false, qos: 2 }

export const HABIT_LINES: readonly Line[] = [
  ...own('toggle', 3, toggleInSeconds, SLEEPS),
  ...own('toggle-kept', 1, toggleInSeconds, { ...SLEEPS, clean: false }),
  ...own('toggle-twice', 1, toggleInSeconds, { ...SLEEPS, qos: 2 }),
  ...own('numbered', 2, numbered, { ...MEASURES, resends: 'anew' }),
  ...own('numbered-kept', 1, numbered, { ...MEASURES, resends: 'anew', clean: false }),
  ...own('micros', 1, inMicros, MEASURES),
  ...own('micros-anew', 1, inMicros, { ...MEASURES, resends: 'anew' }),
  ...own('micros-twice', 1, inMicros, { ...MEASURES, qos: 2 }),
  ...own('untimed', 2, toggleWithoutTime, MEASURES),
  ...own('untimed-exact', 2, toggleWithoutTime, EXACT),
  ...own('untimed-exact-anew', 1, toggleWithoutTime, { ...EXACT, connectsAnew: true }),
  ...own('list-exact-anew', 1, listWithoutTime, { ...EXACT, connectsAnew: true }),
  ...own('micros-anew-kept', 1, inMicros, { ...MEASURES, clean: false, connectsAnew: true }),
  ...own('untimed-list', 1, listWithoutTime, MEASURES),
  ...own('list', 1, listInSeconds, SLEEPS),
  ...own('forms', 1, inManyForms, { ...MEASURES, resends: 'anew' }),
  ...own('nanos', 1, inNanos, { ...MEASURES, resends: 'anew', clean: false }),
  ...own('millis', 1, inMillis, { ...MEASURES, resends: 'anew' }),
  {
    clientId: 'gateway',
    ...SLEEPS,
    devices: [
      { id: 'habit-behind-1', habit: toggleInSeconds },
      { id: 'habit-behind-2', habit: toggleInSeconds },
      { id: 'habit-behind-3', habit: inMicros },
      { id: 'habit-behind-4', habit: toggleWithoutTime },
    ],
  },
]

/** So many devices, each with a connection of its own. */
function own(name: string, count: number, habit: Habit, manner: Manner): Line[] {
  return Array.from({ length: count }, (_, n) => {
    const id = `habit-${name}-${n + 1}`
    return { clientId: id, ...manner, devices: [{ id, habit }] }
  })
}
