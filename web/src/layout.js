// How many columns make the tiles biggest.

/**
 * @param {number} count tiles
 * @param {number} width px of the stage
 * @param {number} height px of the stage
 * @param {number} gap px between tiles
 * @returns {{ columns: number, width: number, height: number }} size of one tile, px
 */
export function bestGrid(count, width, height, gap) {
  // Tall stages (phones) take squarer tiles, so that less of the screen stays empty.
  const aspect = width < height ? 4 / 3 : 16 / 9;
  let best = { columns: 1, width: 0, height: 0 };
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const cellWidth = (width - gap * (columns - 1)) / columns;
    const cellHeight = (height - gap * (rows - 1)) / rows;
    const tileWidth = Math.min(cellWidth, cellHeight * aspect);
    if (tileWidth > best.width) best = { columns, width: Math.floor(tileWidth), height: Math.floor(tileWidth / aspect) };
  }
  return best;
}
