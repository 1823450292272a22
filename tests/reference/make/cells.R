# Makes tests/reference/cells.json: columns that R drops, and marginal means where cells are empty.
# R 4.2.2, lme4 1.1-31, emmeans 1.8.4-1:  Rscript tests/reference/make/cells.R
suppressMessages({library(lme4); library(emmeans); library(jsonlite)})
emm_options(lmer.df = "satterthwaite")
set.seed(11)
n <- 240
data <- data.frame(
  g = rep(sprintf("g%02d", 1:20), each = 12),
  f = sample(letters[1:4], n, TRUE),
  h = sample(c("u", "v", "w"), n, TRUE),
  x = round(rnorm(n), 3),
  z = round(rnorm(n), 3)
)
# Empty cells, and a factor nested in h: k has levels of its own within each level of h.
data <- data[!(data$f == "b" & data$h == "v") & !(data$f == "d" & data$h == "w"), ]
data$k <- paste0(data$h, sample(1:2, nrow(data), TRUE))
data$k[data$k == "w2"] <- "w1"
data$s <- 2 * data$x - data$z
data$one <- 3
data$m <- ifelse(data$k %in% c("u1", "v1", "w1"), "p", "q")
u <- rnorm(20, sd = 0.7)
data$y <- round(1 + 0.5 * data$x + (data$f == "c") * 0.8 + (data$h == "v") * 0.4 +
  u[as.integer(factor(data$g))] + rnorm(nrow(data)), 4)
for (name in c("f", "h", "k", "g", "m")) data[[name]] <- factor(data[[name]])

designs <- c("f * h", "f:h", "0 + f:h", "h / k", "h * k", "k * h", "f * h + x + z + s", "s + x + z", "x + one + f",
  "0 + one + f + h", "f * x + h:x", "f * h * x", "0 + f + h + f:h:x", "x + I(2 * x) + x:h + I(x^2) + I(2 * x^2 - x)",
  "poly(x, 2) + I(x^2)", "f %in% h + h")
dropped <- lapply(designs, function(d) {
  X <- suppressMessages(lFormula(as.formula(paste("y ~", d, "+ (1 | g)")), data))$X
  as.integer(unname(attr(X, "col.dropped"))) - 1L
})
means <- function(formula, specs, ...) {
  fit <- suppressMessages(lmer(as.formula(paste(formula, "+ (1 | g)")), data))
  table <- as.data.frame(summary(suppressMessages(emmeans(fit, as.formula(specs), ...)), infer = c(TRUE, FALSE)))
  keys <- intersect(names(table), c("f", "h", "k", "m"))
  list(formula = formula, specs = specs, keys = lapply(table[keys], as.character), estimate = table$emmean, se = table$SE)
}
tables <- list(
  means("y ~ f * h + x", "~ f * h"),
  means("y ~ f * h + x", "~ f"),
  means("y ~ f * h + x", "~ h"),
  means("y ~ h + h:k + x", "~ k | h"),
  means("y ~ h + h:k + x", "~ h"),
  means("y ~ h / k + x", "~ k"),
  means("y ~ f + h / k", "~ f"),
  means("y ~ h * k", "~ h"),
  means("y ~ h + h:m + x", "~ h"),
  means("y ~ h * m + x", "~ h"),
  means("y ~ f + h + h:m", "~ f")
)
out <- list(data = lapply(data, function(v) if (is.factor(v)) as.character(v) else v),
  designs = designs, dropped = dropped, tables = tables)
write_json(out, "tests/reference/cells.json", digits = 12, auto_unbox = FALSE, na = "null")
