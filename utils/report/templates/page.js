// Sorts tables, saves tables and plots, and reloads the page while its run is under way.
{
const button = (look, words, act) => {
  const made = Object.assign(document.createElement('button'), {type: 'button', className: look, textContent: words})
  made.addEventListener('click', act)
  return made
}
const save = (content, ending) => {
  const name = `${document.title.replace(/[^\w.-]+/g, '-')}.${ending}`
  Object.assign(document.createElement('a'), {href: URL.createObjectURL(content), download: name}).click()
}
const tables = [...document.querySelectorAll('table')]
const details = [...document.querySelectorAll('details')]

const units = {h: 3600, min: 60, s: 1}
const valueOf = cell => {
  const words = cell.textContent.trim().split(' ± ')[0]
  const times = [...words.matchAll(/([\d.]+) (h|min|s)\b/g)]
  if (times.length) return times.reduce((sum, [, count, unit]) => sum + count * units[unit], 0)
  const number = parseFloat(words.replace(/[,<]/g, ''))
  return Number.isNaN(number) ? words : number
}
const ordered = (items, value, sign) => {
  const isMissing = one => one === '' || one === '-'
  const compare = (a, b) => {
    if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b)
    return sign * (typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(b))
  }
  return [...items].sort((a, b) => compare(value(a), value(b)))
}
const sort = (table, column, sign) => {  // within each body below its head, then the bodies
  const heads = table.tHead.rows[0].cells, value = row => valueOf(row.cells[column])
  for (const body of table.tBodies) body.append(...ordered(body.querySelectorAll('tr:not(.head)'), value, sign))
  table.append(...ordered(table.tBodies, body => value(body.rows[0]), sign))
  for (const head of heads) head.removeAttribute('aria-sort')
  heads[column].setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending')
}
const sortedBy = table => {
  const head = table.querySelector('[aria-sort]')
  return head && [head.cellIndex, head.getAttribute('aria-sort') === 'ascending' ? 1 : -1]
}
const saveTable = table => {
  const quoted = cell => `"${cell.innerText.trim().replace(/\s*\n\s*/g, ' ').replace(/"/g, '""')}"`
  const lines = [...table.rows].map(row => [...row.cells].map(quoted).join(',') + '\r\n')
  save(new Blob(['\ufeff', ...lines], {type: 'text/csv'}), 'csv')
}
for (const table of tables) {
  for (const head of table.tHead.rows[0].cells) {
    const turn = () => sort(table, head.cellIndex, head.getAttribute('aria-sort') === 'ascending' ? -1 : 1)
    if (head.textContent.trim()) head.replaceChildren(button('sort', head.textContent.trim(), turn))
  }
  table.parentElement.after(button('save', 'Save as CSV', () => saveTable(table)))
}

const savePlot = async figure => {  // with caption and legend, in the colors of the page
  const scale = 2, {width, height} = figure.getBoundingClientRect(), look = getComputedStyle(document.body)
  const copy = figure.cloneNode(true), canvas = document.createElement('canvas'), image = new Image()
  copy.querySelector('.save').remove()
  for (const name of ['page', 'ink', 'soft', 'rule', 'band', 'k0', 'k1', 'k2', 'k3', 'k4'])
    copy.style.setProperty(`--${name}`, look.getPropertyValue(`--${name}`))
  copy.style.cssText += `; padding: 8px; font: ${look.font}; color: ${look.color}; background: ${look.backgroundColor}`
  const size = `width="${scale * (width + 16)}" height="${scale * (height + 16)}" viewBox="0 0 ${width + 16} ${height + 16}"`
  const style = `<style>${document.querySelector('style').textContent}</style>`
  const content = `${style}<foreignObject width="100%" height="100%">${new XMLSerializer().serializeToString(copy)}</foreignObject>`
  const drawing = `<svg xmlns="${figure.querySelector('svg').namespaceURI}" ${size}>${content}</svg>`
  image.src = `data:image/svg+xml,${encodeURIComponent(drawing)}`
  await image.decode()
  Object.assign(canvas, {width: image.width, height: image.height}).getContext('2d').drawImage(image, 0, 0)
  canvas.toBlob(content => save(content, 'png'))
}
for (const figure of document.querySelectorAll('figure'))
  figure.append(button('save', 'Save as PNG', () => savePlot(figure)))

// A page that reloads keeps what the reader has opened and sorted.
const kept = JSON.parse(sessionStorage.getItem(location.pathname) ?? '{"open": [], "sorted": []}')
details.forEach((part, i) => { part.open = kept.open[i] ?? part.open })
kept.sorted.forEach((by, i) => { if (by && tables[i]) sort(tables[i], ...by) })
sessionStorage.removeItem(location.pathname)
if (document.querySelector('.live')) setTimeout(() => {
  const state = {open: details.map(part => part.open), sorted: tables.map(sortedBy)}
  sessionStorage.setItem(location.pathname, JSON.stringify(state))
  location.reload()
}, 5000)
}
