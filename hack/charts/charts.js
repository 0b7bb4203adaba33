// The parts of Apache ECharts that the bench's page uses. The SVG renderer stays
// sharp in print and on a projector.
import { use } from "echarts/core";
import { CustomChart, ScatterChart } from "echarts/charts";
import { GridComponent, MarkLineComponent, TooltipComponent } from "echarts/components";
import { SVGRenderer } from "echarts/renderers";

use([CustomChart, ScatterChart, GridComponent, MarkLineComponent, TooltipComponent, SVGRenderer]);
export { init } from "echarts/core";
