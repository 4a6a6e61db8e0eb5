/** What `search` of a page means: a part of the id, in any case. */

/** Letters of every script that has cases, one by one as Unicode folds them; nothing else is taken for the same. */
export function patternOf(search: string): RegExp {
  return new RegExp(search.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'), 'iu')
}
