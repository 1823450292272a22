# influence.json.gz: lme4's influence(), drop1() and rePCA(), and clubSandwich, at polished optima.
# Run in this directory: Rscript influence.R [names]

suppressPackageStartupMessages({library(lme4); library(splines)})
source("common.R")

deleted <- function(model, data, m, group) {
  label <- as.character(data[[group]])
  levels <- sort(unique(label))
  parts <- lapply(levels, function(level) {
    found <- polished_lmer(linear_call(model), droplevels(data[label != level, , drop = FALSE]))
    list(beta = fixef(found), se = sqrt(diag(as.matrix(vcov(found)))))
  })
  assign("the_data", data, envir = globalenv())
  tight <- do.call(rbind, lapply(parts, `[[`, "beta"))
  change <- sweep(tight, 2, fixef(m))
  # lme4's definitions: Cook's distance takes n as the number of levels.
  n <- length(levels)
  p <- ncol(change)
  inverse <- solve(as.matrix(vcov(m)))
  list(levels = vec(levels), fixef_tight = unname(tight),
       lme4_cooks = vec(rowSums((change %*% inverse) * change) * (n - p) / (n * p)),
       lme4_dfbetas = unname(change / do.call(rbind, lapply(parts, `[[`, "se"))))
}

robust <- function(m) {
  vcovs <- lapply(setNames(nm = c("CR0", "CR1", "CR2")), function(type)
    unname(as.matrix(clubSandwich::vcovCR(m, type = type))))
  test <- clubSandwich::coef_test(m, vcov = "CR2", test = "Satterthwaite")
  c(vcovs, list(coef_test_CR2 = list(rows = vec(rownames(as.data.frame(test))), cols = lapply(as.list(as.data.frame(test)), vec)),
                note = "clubSandwich::vcovCR, cluster = outermost grouping factor"))
}

# drop1() fits the smaller models with the control of the larger one: tight tolerances, by maximum likelihood.
dropped <- function(model, data) {
  if (startsWith(model$family, "gaussian")) {
    model$reml <- FALSE
    call <- attr(polished_lmer(linear_call(model), data), "plain_call")
    call$control <- quote(linear_control(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5)))
  } else {
    assign("the_data", data, envir = globalenv())
    model$nAGQ <- 1
    call <- generalised_call(model)
    call$control <- quote(generalised_control(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9, maxfun = 1e5),
                                              nAGQ0initStep = TRUE))
  }
  found <- quiet(drop1(eval(call, globalenv()), test = "Chisq"))
  list(rows = vec(rownames(found)), AIC = vec(found$AIC), chi2 = vec(found$LRT))
}

describe <- function(name, model) {
  data <- read_data(model$data)
  blocks <- unlist(model$blocks)
  model$reml <- model$REML
  out <- list(formula = model$formula, data = model$data, REML = model$REML, family = model$family, link = model$link)
  if (any(blocks != "drop1")) m <- polished_lmer(linear_call(model), data)
  if ("cluster_robust" %in% blocks) out$cluster_robust <- robust(m)
  if ("influence" %in% blocks) {
    out$influence <- list(hatvalues = vec(hatvalues(m)), cooks_distance = vec(cooks.distance(m)), rstudent = vec(rstudent(m)))
    for (block in unlist(model$delete)) out$influence[[block]] <- deleted(model, data, m, sub("delete_", "", block))
  }
  if ("drop1" %in% blocks) out$drop1 <- dropped(model, data)
  if ("rePCA" %in% blocks) out$rePCA <- lapply(rePCA(m), function(part) vec(part$sdev))
  out
}

write_reference("influence.json.gz", list(about = paste(
  versions("lme4", "clubSandwich"), "(influence, drop1, rePCA; cluster_robust). dfbeta of lme4 is the estimate without a unit",
  "minus the estimate with it."), models = each_model("influence", describe)))
