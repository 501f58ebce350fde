// Workers Analytics Engine, in little: each data point is a line of the log. workerd alone has no dataset.
export default () => ({
  writeDataPoint: (point) => console.log(JSON.stringify({ dataset: point })),
});
